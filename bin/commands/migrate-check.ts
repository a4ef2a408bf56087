import type { Command } from "commander";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { areDisksCared } from "../disk-option.ts";
import { openDriver } from "../open-driver.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";

interface CheckOptions {
  readonly stop?: boolean;
  readonly disks?: string;
  readonly type?: string;
}

const EXIT_FAILED = 4;

export function registerMigrateCheck(parent: Command): void {
  addCommand(parent, {
    usage: "check <source>",
    description: `look whether a machine can be saved, and say what is in the way

SOURCE is qmp:PATH (a running QEMU), machine:PATH (a native machine) or unix:PATH (a vhost-user back-end). Nothing is touched.
Each line is one thing that was looked at: passed or FAILED, with what was found or what to do.`,
    examples: [
      ["vhu migrate check qmp:/run/web.qmp", "can this VM be saved while it goes on?"],
      ["vhu migrate check --stop qmp:/run/web.qmp", "and if it ends with the save?"],
    ],
    exitStatus: { 4: "it cannot be saved", 5: "nobody is there, or another client holds the monitor" },
  })
    .option("--stop", "look at a save after which the machine ends")
    .option("--disks <how>", "external: you copy the disks of a QEMU machine yourself")
    .option("--type <type>", "what kind of device a unix: back-end is")
    .action(action((context, source: string, options: CheckOptions) => check(context, source, options)));
}

async function check(
  { output, signal }: CommandContext,
  sourceText: string,
  { stop, disks, type }: CheckOptions,
): Promise<number> {
  const source = parseAddressOf(sourceText, "source", ["qmp", "machine", "unix"]);
  using driver = await openDriver(source, { type, signal, areDisksCared: areDisksCared(stop, disks) });
  const { name, runState } = await driver.describe();
  const checks = await driver.preflight();
  const ok = checks.every((each) => each.ok);
  if (output.json) {
    output.document({ name, runState, ok, checks });
  } else {
    const rows = checks.map((each) => [each.ok ? "passed" : "FAILED", each.name, printable(each.detail)]);
    output.lines(formatTable(rows));
    output.line(ok ? `${printable(name)} can be saved` : `${printable(name)} cannot be saved`);
  }
  return ok ? 0 : EXIT_FAILED;
}
