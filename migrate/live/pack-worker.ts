/** A pack Worker (pack-pool.ts): packs the windows of its streams, in the order in which they come. */
import { parentPort, workerData } from "node:worker_threads";
import { type PackDone, type PackJob, type PackSetup, slotViews } from "./pack-slots.ts";
import { WindowPacker } from "./window-packer.ts";

const { memory, cacheBytes } = workerData as PackSetup;
const packers = new Map<number, WindowPacker>();

parentPort?.on("message", ({ slot, stream, sizeBytes, ...place }: PackJob) => {
  const packer = packers.get(stream) ?? new WindowPacker(cacheBytes);
  packers.set(stream, packer);
  const { window, room } = slotViews(memory, slot);
  let done: PackDone;
  try {
    done = { slot, packedBytes: packer.pack(window.subarray(0, sizeBytes), place, room) };
  } catch (error) {
    done = { slot, fault: (error as Error).message };
  }
  parentPort?.postMessage(done);
});
