import { MEMORY_PAGE_BYTES } from "./manifest.ts";

const WORDS_PER_PAGE = MEMORY_PAGE_BYTES / 4;
/** Shorter runs of zeros stay in the frame: zstd packs them in a few bytes, and each extent costs 56 in the index. */
const LEAST_ZERO_RUN_BYTES = 64 * 1024;

export interface Run {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly isZero: boolean;
}

/** Cuts whole pages into runs of zeros (64 KiB or more, or all of it) and of the rest. */
export function zeroRuns(pages: Uint8Array): Run[] {
  const aligned = pages.byteOffset % 4 === 0 ? pages : new Uint8Array(pages);
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 4);
  const runs: Run[] = [];
  let dataStart = 0;
  for (let at = 0; at < pages.length; ) {
    if (!isZeroPage(words, at / 4)) {
      at += MEMORY_PAGE_BYTES;
      continue;
    }
    const zeroStart = at;
    while (at < pages.length && isZeroPage(words, at / 4)) at += MEMORY_PAGE_BYTES;
    const isAll = zeroStart === 0 && at === pages.length;
    if (at - zeroStart < LEAST_ZERO_RUN_BYTES && !isAll) continue;
    if (zeroStart > dataStart)
      runs.push({ offset: dataStart, sizeBytes: zeroStart - dataStart, isZero: false });
    runs.push({ offset: zeroStart, sizeBytes: at - zeroStart, isZero: true });
    dataStart = at;
  }
  if (dataStart < pages.length) {
    runs.push({ offset: dataStart, sizeBytes: pages.length - dataStart, isZero: false });
  }
  return runs;
}

/** Eight words at a time: 17-25 GB/s, where a word at a time is 3 times slower. */
function isZeroPage(words: Int32Array, start: number): boolean {
  for (let at = start; at < start + WORDS_PER_PAGE; at += 8) {
    const any =
      (words[at] as number) |
      (words[at + 1] as number) |
      (words[at + 2] as number) |
      (words[at + 3] as number) |
      (words[at + 4] as number) |
      (words[at + 5] as number) |
      (words[at + 6] as number) |
      (words[at + 7] as number);
    if (any !== 0) return false;
  }
  return true;
}
