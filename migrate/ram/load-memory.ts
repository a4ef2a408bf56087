import { createMemfd, eventLoopTurn, type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSource } from "../driver.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";

const EXTENTS_PER_TURN = 32;

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
  using stack = new DisposableStack();
  const fd = stack.use(createMemfd("machine memory", region.sizeBytes));
  using mapping = Mapping.ofFd(fd, { sizeBytes: region.sizeBytes });
  let round = 0;
  for (const extent of source.extents(region.id)) {
    if (extent.frame === undefined) continue;
    const window = mapping.window(extent.offset, extent.sizeBytes);
    source.readExtentInto(extent, new Uint8Array(window));
    mapping.closeWindow(window);
    if (++round % EXTENTS_PER_TURN !== 0) continue;
    options.onProgress?.({
      phase: "memory",
      done: extent.offset + extent.sizeBytes,
      total: region.sizeBytes,
    });
    await eventLoopTurn();
    options.signal?.throwIfAborted();
  }
  options.onProgress?.({ phase: "memory", done: region.sizeBytes, total: region.sizeBytes });
  stack.move();
  return fd;
}
