import type { Command } from "commander";
import { action, addCommand } from "../command.ts";
import type { Finding } from "../doctor/finding.ts";
import { runCheck } from "../doctor/finding.ts";
import { hostChecks } from "../doctor/host-checks.ts";
import { kernelChecks } from "../doctor/kernel-checks.ts";
import { programChecks } from "../doctor/program-checks.ts";
import { formatCount } from "../output/format.ts";
import { formatTable } from "../output/table.ts";

export function registerDoctor(parent: Command): void {
  addCommand(parent, {
    usage: "doctor",
    description: `can this host run vhu? what is missing, and how to get it

Tries what vhu needs of the kernel, and looks for the programs it works with. Changes nothing.`,
    examples: [
      ["vhu doctor", "a table of what is there, and how to get what is not"],
      ["vhu doctor --json", "the same for a program"],
    ],
    exitStatus: { 0: "vhu can run here", 1: "something essential is missing" },
  }).action(
    action(async ({ output }) => {
      const findings: Finding[] = [];
      for (const check of [...hostChecks, ...kernelChecks, ...programChecks]) {
        findings.push(await runCheck(check));
      }
      const canRun = !findings.some(({ isEssential, state }) => isEssential && state === "missing");
      if (output.json) output.document({ canRun, checks: findings });
      else output.lines(doctorPage(findings, canRun));
      return canRun ? 0 : 1;
    }),
  );
}

function doctorPage(findings: readonly Finding[], canRun: boolean): string[] {
  const rows = findings.flatMap(({ name, state, detail, remedy }) => {
    const row = [name, state, detail];
    return remedy === undefined ? [row] : [row, ["", "", `-> ${remedy}`]];
  });
  const notes = findings.filter(({ state }) => state === "note").length;
  const missing = findings.filter(({ state }) => state === "missing").length;
  const verdict = canRun
    ? `vhu can run here${notes === 0 ? "" : `, with ${formatCount(notes, "note")} above`}.`
    : `vhu cannot run here: ${formatCount(missing, "thing")} missing, see above.`;
  return [...formatTable(rows, ["check", "state", "what was found"]), "", verdict];
}
