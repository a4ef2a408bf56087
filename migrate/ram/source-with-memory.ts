import type { VmSource } from "../driver.ts";
import type { GuestMemory } from "./guest-memory.ts";

/** A source whose memory has come already. */
export function sourceWithMemory(source: VmSource, memory: GuestMemory): VmSource {
  return {
    manifest: source.manifest,
    memoryMap: source.memoryMap,
    memory: (id) => source.memory(id),
    extents: (id) => source.extents(id),
    loadRegion: (id, fd, options) => source.loadRegion(id, fd, options),
    deviceState: (id) => source.deviceState(id),
    qemuStream: () => source.qemuStream(),
    machineState: () => source.machineState(),
    takeMemory: (id) => memory.fd(id).duplicate(),
  };
}
