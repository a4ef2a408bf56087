import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";

/** Windows end at multiples of 1 MiB of the region, so that equal memory in other places makes equal frames. */
export function windowsOf(offset: number, sizeBytes: number): { start: number; sizeBytes: number }[] {
  const windows: { start: number; sizeBytes: number }[] = [];
  for (let start = 0; start < sizeBytes; ) {
    const untilBoundary = MAX_SNAPSHOT_FRAME_BYTES - ((offset + start) % MAX_SNAPSHOT_FRAME_BYTES);
    const window = { start, sizeBytes: Math.min(untilBoundary, sizeBytes - start) };
    windows.push(window);
    start += window.sizeBytes;
  }
  return windows;
}
