/** `npm run soak -- [NAME…] [--sample]`: the long runs, or short ones, one after the other, with their figures. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fuzzDevices } from "../fuzz/devices.ts";
import { fuzz, fuzzRequests } from "../fuzz/protocol.ts";
import { fuzzQemuFile } from "../fuzz/qemu-file.ts";
import { fuzzQemuStream } from "../fuzz/qemu-stream.ts";
import { fuzzQemuTree } from "../fuzz/qemu-tree.ts";
import { killBlkUnderLoad } from "../support/blk-kills.ts";
import { measureDamageMemory } from "../support/damage-memory.ts";
import { damagedKinds, damageSnapshots } from "../support/damage-snapshots.ts";
import { handoverMoments, killAtHandover } from "../support/handover-kills.ts";
import { killOperations } from "../support/kill-operations.ts";
import { killQemuOperations } from "../support/kill-qemu-operations.ts";
import { killSaves } from "../support/kill-save.ts";
import { hopNative } from "../support/live-hops.ts";
import { killMigrations } from "../support/live-kills.ts";
import { hopQemu } from "../support/live-qemu.ts";
import { describeRoundTrips, migrateThereAndBack } from "../support/migration-round-trips.ts";
import { saveAndLoadSizes } from "../support/qemu-sizes.ts";
import { measureStateTransfer } from "./state-transfer.ts";

/** A long run; it throws when something is off. Add yours to the list. */
export interface Soak {
  readonly name: string;
  readonly what: string;
  run(): unknown;
  /** A short one of the same. Without it, a test is one already. */
  sample?(): unknown;
}

const GROWTH_LIMIT_MIB = 32;
const EXTRA_LIMIT_MIB = 128;

export const soaks: readonly Soak[] = [
  {
    name: "protocol",
    what: "100,000 random messages to a back-end",
    run: () => withoutGrowth(fuzz(20261123, 100_000)),
    sample: () => withoutGrowth(fuzz(20261123, 2_000)),
  },
  {
    name: "requests",
    what: "100,000 random back-end requests to a front-end",
    run: () => withoutGrowth(fuzzRequests(20261123, 100_000)),
    sample: () => withoutGrowth(fuzzRequests(20261123, 2_000)),
  },
  {
    name: "devices",
    what: "1,000,000 chains of hostile drivers to every device",
    run: () => [...fuzzDevices(20261125, 1_000_000)],
  },
  {
    name: "qemu-files",
    what: "1,000,000 damaged QEMU streams and sections, 200,000 damaged mapped-ram and virsh save files",
    run: () => [
      ...fuzzQemuStream(20261125, 1_000_000),
      ...fuzzQemuTree(20261125, 1_000_000),
      ...fuzzQemuFile(20261125, 200_000),
    ],
  },
  ...damagedKinds.map((kind) => ({
    name: `snapshot-damage-${kind}`,
    what: `10,000 flips and 1,000 cuts of a snapshot: ${kind}`,
    run: () => damageSnapshots(kind, 20261123, 10_000, 1_000),
  })),
  ...damagedKinds.map((kind) => ({
    name: `snapshot-damage-memory-${kind}`,
    what: `the most memory that a reader needs for them, damaged and forged: ${kind}`,
    run: () => measureDamageMemory(kind, 20261123, 10_000, 1_000),
  })),
  {
    name: "snapshot-kill",
    what: "SIGKILL at 200 random moments of a save",
    run: () => killSaves(20261123, 200),
  },
  {
    name: "operation-kills",
    what: "SIGKILL of vhu, a native machine or its daemons at 60 random moments of save and load",
    run: () => killOperations(20261125, 60),
  },
  {
    name: "qemu-operation-kills",
    what: "SIGKILL of vhu, QEMU or its disk's daemon at 60 random moments of save and load",
    run: () => killQemuOperations(20261125, { savesOfOne: 20, saves: 10, loads: 30 }),
  },
  {
    name: "handover-kills",
    what: "SIGKILL of one vhu, and of both, at every moment of a hand-over between hosts",
    run: async () => {
      const outcomes: string[] = [];
      for (const both of [false, true]) {
        for (const moment of handoverMoments) {
          outcomes.push(`${moment.join(" ")}${both ? ", both" : ""}: ${await killAtHandover(moment, both)}`);
        }
      }
      return outcomes;
    },
  },
  {
    name: "device-state",
    what: "1 GiB of device state there and back, in two processes",
    run: async () => {
      const figures = await measureStateTransfer(2 ** 30);
      const most = Math.max(figures.frontendExtraMiB, figures.backendExtraMiB);
      if (most >= EXTRA_LIMIT_MIB)
        throw new Error(`${most} MiB of extra memory, the limit is ${EXTRA_LIMIT_MIB}`);
      return figures;
    },
  },
  {
    name: "blk-kills",
    what: "a guest writes while the daemon of its disk is killed 50 times",
    run: () => inFolder((dir) => killBlkUnderLoad(dir, 50)),
  },
  {
    name: "live-native",
    what: "a native machine under load moves between two hosts 100 times",
    run: () => hopNative(100),
  },
  {
    name: "live-qemu",
    what: "a QEMU guest at work moves there and back 10 times at 1 Gbit/s, with 1% loss, and with 50 ms of delay each way",
    run: () =>
      hopQemu([
        { hops: 20 },
        { hops: 20, faults: { lossPercent: 1 } },
        { hops: 20, faults: { delayMs: 50 } },
      ]),
  },
  {
    name: "live-kills",
    what: "200 migrations of which one part is killed or cut at a random moment",
    run: () => killMigrations(20261125, 200),
  },
  {
    name: "qemu-migration",
    what: "QEMU migrates a busy guest with disk and network there and back 10 times",
    run: () => inFolder(async (dir) => describeRoundTrips(await migrateThereAndBack(dir, 10))),
  },
  {
    name: "qemu-sizes",
    what: "QEMU guests of 1, 2 and 8 GiB are saved, ended, and loaded by one command",
    run: () => inFolder((dir) => saveAndLoadSizes(dir, [1, 2, 8])),
  },
];

async function inFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), "vhu-soak-"));
  try {
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The first quarter fills the caches of the engine; what is added after the second is growth. */
function withoutGrowth<T extends { readonly rssMiB: readonly number[] }>(report: T): T {
  const growth = report.rssMiB.at(-1)! - report.rssMiB[1]!;
  if (growth > GROWTH_LIMIT_MIB) throw new Error(`memory grew by ${growth} MiB: ${report.rssMiB.join(", ")}`);
  return report;
}

if (import.meta.main) {
  const words = process.argv.slice(2);
  const isSample = words.includes("--sample");
  const names = words.filter((word) => word !== "--sample");
  const chosen = soaks
    .filter(({ name }) => names.length === 0 || names.includes(name))
    .filter(({ sample }) => !isSample || sample !== undefined);
  if (chosen.length === 0)
    throw new Error(`no such soak; there are ${soaks.map(({ name }) => name).join(", ")}`);
  for (const { name, what, run, sample } of chosen) {
    console.log(`${name}: ${isSample ? "a sample of " : ""}${what}`);
    const startMs = performance.now();
    console.log(await (isSample ? sample! : run)());
    console.log(`${name}: ${((performance.now() - startMs) / 1000).toFixed(1)} s\n`);
  }
}
