import { createMemfd, type Fd } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSource } from "../driver.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";

/**
 * Makes the memory of a region and fills it: each extent is checked as it is unpacked. Zeros are left to the kernel.
 * @returns the memfd; nobody but the caller has it
 * @throws FormatError when an extent is damaged; the memory is gone then
 */
export async function loadMemory(
  source: VmSource,
  region: SnapshotRegion,
  options: MoveOptions = {},
): Promise<Fd> {
  if (source.takeMemory !== undefined) return source.takeMemory(region.id);
  using stack = new DisposableStack();
  const fd = stack.use(createMemfd("machine memory", region.sizeBytes));
  await source.loadRegion(region.id, fd.number, {
    signal: options.signal,
    onProgress: (done) => options.onProgress?.({ phase: "memory", done, total: region.sizeBytes }),
  });
  options.onProgress?.({ phase: "memory", done: region.sizeBytes, total: region.sizeBytes });
  stack.move();
  return fd;
}
