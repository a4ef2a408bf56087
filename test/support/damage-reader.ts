/** `damage-reader.ts READING PATH KEY SEED FLIPS CUTS`: reads a file many times, damaged or not, and prints its own peak of memory (VmHWM, KiB). */
import { readFileSync, writeFileSync } from "node:fs";
import { salvageSnapshot } from "../../migrate/snapshot/mod.ts";
import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { eventLoopTurn } from "../../src/sys/mod.ts";
import { resealContainer } from "../fuzz/container.ts";
import { damages, findingIn } from "./damage-snapshots.ts";

const [reading, path = "", key = "", ...numbers] = process.argv.slice(2);
const [seed = 0, flips = 0, cuts = 0] = numbers.map(Number);
const fileKey = key === "" ? undefined : Uint8Array.fromHex(key);
const whole = new Uint8Array(readFileSync(path));

for (const { bytes, what } of damages(whole, seed, flips, cuts)) {
  if (reading === "mended") resealContainer(bytes);
  writeFileSync(path, reading === "intact" ? whole : bytes);
  // What natives hold is given back in turns of the event loop, which a command has and a mere loop has not.
  await eventLoopTurn();
  const finding = findingIn(path, fileKey);
  if (reading === "damaged" && finding === undefined) throw new Error(`${what} was not found`);
  await salvageSnapshot(path).catch((error) => {
    // Mended, it may be of a later version, or hold what cannot be.
    if (!(error instanceof CompatibilityError || error instanceof FormatError)) throw error;
  });
}
const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
process.stdout.write(peak ?? "");
