import type { MoveOptions, VmSink, VmSource } from "../driver.ts";
import { loadMemory } from "./load-memory.ts";
import { saveMemory } from "./save-memory.ts";

/** All memory of one snapshot into another, a region at a time; it is unpacked in memory meanwhile, never on a disk. */
export async function copyMemory(source: VmSource, sink: VmSink, options: MoveOptions = {}): Promise<void> {
  for (const region of source.memoryMap) {
    using memory = await loadMemory(source, region, { signal: options.signal });
    await saveMemory(sink, region.id, memory, region.sizeBytes, options);
  }
}
