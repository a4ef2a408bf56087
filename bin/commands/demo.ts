import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { action, addCommand, type CommandContext } from "../command.ts";
import { type DemoResult, isRight, runDemo } from "../demo/demo.ts";
import { formatBytes, formatDuration } from "../output/format.ts";
import { describeSnapshot } from "../snapshot/describe.ts";
import { snapshotPage } from "../snapshot/page.ts";
import { wholeNumber } from "../whole-number.ts";

interface DemoCommandOptions {
  readonly keep?: boolean;
  readonly writes: number;
}

export function registerDemo(parent: Command): void {
  addCommand(parent, {
    usage: "demo",
    description: `the main job, end to end, on a machine of its own

Runs a small machine with a disk and a console, whose workload writes blocks that carry a sequence and a checksum; saves it
under load; ends every process of it by SIGKILL; loads it in new processes; lets it go on; and checks, through its devices and
in its files, that no write was lost, torn or repeated. Needs nothing else installed.`,
    examples: [
      ["vhu demo", "see it work, in a few seconds"],
      ["vhu demo --keep", "and keep the snapshot, the disk and the logs"],
    ],
    exitStatus: { 1: "something was lost, torn or repeated, or a step failed" },
  })
    .option("--keep", "keep the folder with all files")
    .option("--writes <number>", "writes before the save, and again after the load", wholeNumber(1), 5000)
    .action(action((context, options: DemoCommandOptions) => demo(context, options)));
}

async function demo(context: CommandContext, options: DemoCommandOptions): Promise<number> {
  const { output, signal } = context;
  const folder = mkdtempSync(join(tmpdir(), "vhu-demo-"));
  try {
    const result = await runDemo({
      folder,
      version,
      signal,
      writes: options.writes,
      say: (message, fields) => output.status(message, fields),
    });
    const ok = isRight(result);
    const page = inspectLines(result.snapshotPath);
    output.summary({ ok, ...result, ...(options.keep ? { folder } : {}) }, () => [
      ...page,
      "",
      ...resultLines(result),
      ok ? "nothing was lost, torn or repeated" : "SOMETHING IS WRONG: the figures above say what",
      ...(options.keep ? [`files: ${folder}`] : []),
    ]);
    return ok ? 0 : 1;
  } finally {
    if (!options.keep) rmSync(folder, { recursive: true, force: true });
  }
}

function inspectLines(path: string): string[] {
  using reader = SnapshotReader.open(path);
  return [
    "",
    "vhu snapshot inspect demo.vhu",
    ...snapshotPage("demo.vhu", describeSnapshot(reader)).map((line) => `  ${line}`),
  ];
}

function resultLines(result: DemoResult): string[] {
  const { verify, evidence } = result;
  return [
    `save   ${formatDuration(result.saveMs)}, ${formatBytes(result.snapshotBytes)}`,
    `load   ${formatDuration(result.loadMs)}, new processes included`,
    `writes ${result.writesBefore} before, ${result.writesAfter} after`,
    `blocks ${verify.checked} read back through the device: ${verify.lost} lost, ${verify.torn} torn, ${verify.repeated} repeated`,
    `image  ${evidence.blocks} blocks against the log: ${evidence.lostBlocks} lost, ${evidence.tornBlocks} torn`,
    `log    ${evidence.acknowledged} acknowledgements: ${evidence.missingLines} missing, ${evidence.repeatedLines} repeated`,
  ];
}
