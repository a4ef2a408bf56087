import { readFileSync } from "node:fs";
import { BLOCK_BYTES, readBlock } from "../../migrate/machine/mod.ts";

/** What the files that the demo's machine wrote say by themselves, without asking any process. */
export interface Evidence {
  /** Writes that the console's log says were acknowledged. */
  readonly acknowledged: number;
  /** Lines of the log that repeat a sequence, or skip one. */
  readonly repeatedLines: number;
  readonly missingLines: number;
  /** Blocks of the image by what is wrong with them. */
  readonly tornBlocks: number;
  readonly lostBlocks: number;
  readonly blocks: number;
}

/**
 * Compares the image with the log: a block whose write was acknowledged must hold that write or a later one, whole.
 * @param blocks how many blocks of the image the machine writes to, over and over
 */
export function gatherEvidence(imagePath: string, logPath: string, blocks: number): Evidence {
  const sequences = readFileSync(logPath, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => Number(line.split(" ")[1]));
  let repeatedLines = 0;
  let missingLines = 0;
  const latest = new Map<number, number>();
  let previous = 0;
  for (const sequence of sequences) {
    if (sequence <= previous) repeatedLines++;
    else missingLines += sequence - previous - 1;
    previous = Math.max(previous, sequence);
    latest.set((sequence - 1) % blocks, sequence);
  }
  const image = readFileSync(imagePath);
  let tornBlocks = 0;
  let lostBlocks = 0;
  for (const [slot, sequence] of latest) {
    const found = readBlock(image.subarray(slot * BLOCK_BYTES, (slot + 1) * BLOCK_BYTES));
    if (found === "torn") tornBlocks++;
    else if (found === "untouched" || found.slot !== slot || Number(found.sequence) < sequence) lostBlocks++;
  }
  return { acknowledged: previous, repeatedLines, missingLines, tornBlocks, lostBlocks, blocks: latest.size };
}
