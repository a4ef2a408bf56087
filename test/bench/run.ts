/**
 * Runs the benches and prints their figures: npm run bench -- [NAME…] [--only=TEXT] [--json] [--rounds=N]
 *
 * A figure is good for the machine and the moment; what counts is the ratio of contenders that took turns in one run.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blk } from "./blk.ts";
import { commandStart } from "./command-start.ts";
import { deviceState } from "./device-state.ts";
import { live } from "./live.ts";
import { net } from "./net.ts";
import { qemuLoad } from "./qemu-load.ts";
import { qemuPause } from "./qemu-pause.ts";
import { qemuSaving } from "./qemu-save.ts";
import { requestRoundTrip } from "./request-round-trip.ts";
import { snapshot } from "./snapshot.ts";
import { splitRing } from "./split-ring.ts";
import type { BenchContext } from "./support/bench.ts";
import { Compiler } from "./support/compiler.ts";
import { type ContestResult, hold } from "./support/contest.ts";
import { describeMachine, reportLines } from "./support/report.ts";
import { warmMemory } from "./support/warm-memory.ts";

const BENCHES = [
  requestRoundTrip,
  deviceState,
  splitRing,
  blk,
  net,
  snapshot,
  qemuSaving,
  qemuLoad,
  live,
  qemuPause,
  commandStart,
];
const DEFAULT_ROUNDS = 7;
const MIN_ROUNDS = 5;

const words = process.argv.slice(2);
const json = words.includes("--json");
const rounds = Number(
  words.find((word) => word.startsWith("--rounds="))?.slice("--rounds=".length) ?? DEFAULT_ROUNDS,
);
const only = words.find((word) => word.startsWith("--only="))?.slice("--only=".length) ?? "";
const names = words.filter((word) => !word.startsWith("--"));
const unknown = names.filter((name) => !BENCHES.some((bench) => bench.name === name));
if (unknown.length > 0 || !(rounds >= MIN_ROUNDS)) {
  console.error(
    `usage: npm run bench -- [NAME…] [--only=TEXT] [--json] [--rounds=N], TEXT of contests' titles, N at least ${MIN_ROUNDS}. The names:`,
  );
  for (const { name, meaning } of BENCHES) console.error(`  ${name.padEnd(20)} ${meaning}`);
  process.exit(2);
}
const chosen = BENCHES.filter(({ name }) => names.length === 0 || names.includes(name));

const folder = mkdtempSync(join(tmpdir(), "vhu-bench-"));
try {
  await main();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<void> {
  const say = (line: string) => console.error(line);
  const compiler = new Compiler(folder, say);
  const context: BenchContext = { folder, say, compile: (name) => compiler.compile(name) };
  const machineBefore = describeMachine();
  if (!json) console.log(`${JSON.stringify(machineBefore)}\n`);
  await warmMemory(Math.max(...chosen.map((bench) => bench.memoryBytes)));
  const results: ContestResult[] = [];
  for (const bench of chosen) {
    for (const contest of await bench.prepare(context)) {
      if (!contest.title.includes(only)) continue;
      const held = await hold(contest, rounds, (round) =>
        say(`${contest.title}: round ${round} of ${rounds}`),
      );
      results.push(...held);
      if (!json) for (const result of held) console.log(`${reportLines(result).join("\n")}\n`);
    }
  }
  const loadAverageAfter = describeMachine().loadAverage;
  if (json) console.log(JSON.stringify({ machine: machineBefore, loadAverageAfter, results }, undefined, 2));
  else console.log(`load average afterwards: ${loadAverageAfter}`);
}
