import type { VmSink } from "../../migrate/mod.ts";

/** A sink that keeps nothing and counts its passes. */
export function countingSink(): VmSink & { passes: number } {
  const stream = { write: () => {}, finish: () => ({ sizeBytes: 0, sha256: "" }) };
  const sink = {
    passes: 1,
    writeMemoryMap: () => {},
    lookUpPages: () => ({ [Symbol.dispose]: () => {} }),
    writeMemory: async () => {},
    writeHole: () => {},
    nextMemoryPass: () => {
      sink.passes += 1;
      return sink.passes - 1;
    },
    writeDeviceState: () => stream,
    writeQemuStream: () => stream,
    writeMachineState: () => {},
    writeManifest: () => {},
  };
  return sink as unknown as VmSink & { passes: number };
}
