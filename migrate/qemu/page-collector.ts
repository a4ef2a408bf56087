import { UsageError } from "../../src/errors.ts";
import { MAX_MEMORY_PASSES, MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import type { VmSink } from "../driver.ts";
import type { OpenedBlocks } from "./opened-blocks.ts";
import { PageWindows } from "./page-windows.ts";
import { type RamBlock, TARGET_PAGE_BYTES } from "./stream-format.ts";
import type { RamSink } from "./stream-ram.ts";

/** A shorter run of zeros is written with the pages around it. */
const LEAST_HOLE_BYTES = 64 * 1024;

/**
 * Gathers the pages of a stream into a snapshot's memory: what follows each other is written as one, while more comes. A
 * page that comes again while the VM runs begins another pass of the snapshot, where it replaces the earlier one.
 *
 * @example
 * const parser = new StreamParser(collector);
 * for await (const bytes of source) {
 *   parser.push(bytes);
 *   await collector.ready();
 * }
 * await collector.finish();
 */
export class PageCollector implements RamSink {
  readonly #sink: VmSink;
  readonly #opened: OpenedBlocks | undefined;
  readonly #windows: PageWindows;
  #blocks: readonly RamBlock[] = [];
  /** By their number, the blocks that are not taken from the stream. */
  #isOpened: boolean[] = [];
  #isStill = false;
  /** Called when all memory is as it will be saved. */
  whenStill: (() => void) | undefined;
  /** A bit for each page: written in this pass, and in any. */
  #inPass: Uint8Array[] = [];
  #ever: Uint8Array[] = [];
  #passCount = 1;
  #block = 0;
  /** The run that is open: from `#start`, bytes that are in the window, then zeros that are not. */
  #start = 0;
  #dataBytes = 0;
  #zeroBytes = 0;
  doneBytes = 0;
  totalBytes = 0;

  /** @param opened Blocks whose pages come another way. */
  constructor(sink: VmSink, opened?: OpenedBlocks) {
    this.#sink = sink;
    this.#opened = opened;
    this.#windows = new PageWindows(sink);
  }

  /** Of the stream, once they are known. */
  get ramBlocks(): readonly RamBlock[] {
    return this.#blocks;
  }

  blocks(blocks: readonly RamBlock[]): void {
    this.#blocks = blocks;
    this.#isOpened = blocks.map((block) => this.#opened?.has(block) ?? false);
    this.totalBytes = blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const bitmaps = () =>
      blocks.map(({ sizeBytes }) => new Uint8Array(Math.ceil(sizeBytes / TARGET_PAGE_BYTES / 8)));
    this.#inPass = bitmaps();
    this.#ever = bitmaps();
    this.#sink.writeMemoryMap(
      blocks.map(({ name, sizeBytes }, id) => ({ id, guestAddress: 0, sizeBytes, name })),
    );
  }

  standsStill(): void {
    this.#isStill = true;
    this.whenStill?.();
  }

  page(block: number, offset: number, bytes: Uint8Array): void {
    if (this.#isOpened[block]) {
      if (this.#isStill) this.#opened?.compare(this.#blocks[block] as RamBlock, offset, bytes);
      return;
    }
    this.#begin(block, offset);
    if (this.#zeroBytes > 0) this.#closeZeros();
    // A frame ends at a multiple of its size: there, one that does not fit goes into the next window as a whole.
    const wantedBytes =
      offset % MAX_SNAPSHOT_FRAME_BYTES === 0 ? MAX_SNAPSHOT_FRAME_BYTES : TARGET_PAGE_BYTES;
    if (this.#windows.roomBytes < wantedBytes) {
      this.#flushData();
      this.#windows.next();
    }
    this.#windows.append(bytes);
    this.#dataBytes += TARGET_PAGE_BYTES;
  }

  zeroPage(block: number, offset: number): void {
    if (this.#isOpened[block]) return;
    this.#begin(block, offset);
    this.#zeroBytes += TARGET_PAGE_BYTES;
  }

  /** Waits until there is room for more of the stream. @throws what became of an earlier write */
  ready(): Promise<void> {
    return this.#windows.ready();
  }

  /** Pages that QEMU never sent are of no use to the guest (a balloon's): they read as zeros. */
  async finish(): Promise<void> {
    this.#flush();
    await this.#windows.settled();
    for (const [block, { sizeBytes }] of this.#blocks.entries()) {
      if (this.#isOpened[block]) continue;
      const pages = sizeBytes / TARGET_PAGE_BYTES;
      const ever = this.#ever[block] as Uint8Array;
      for (let page = 0; page < pages; page += 1) {
        if (isSet(ever, page)) continue;
        const first = page;
        while (page < pages && !isSet(ever, page)) page += 1;
        this.#sink.writeHole(block, first * TARGET_PAGE_BYTES, (page - first) * TARGET_PAGE_BYTES);
      }
    }
  }

  #begin(block: number, offset: number): void {
    const page = offset / TARGET_PAGE_BYTES;
    const inPass = this.#inPass[block] as Uint8Array;
    if (isSet(inPass, page)) this.#nextPass();
    set(inPass, page);
    set(this.#ever[block] as Uint8Array, page);
    this.doneBytes += TARGET_PAGE_BYTES;
    if (block === this.#block && offset === this.#start + this.#dataBytes + this.#zeroBytes) return;
    this.#flush();
    this.#block = block;
    this.#start = offset;
  }

  #nextPass(): void {
    this.#flush();
    this.#passCount += 1;
    if (this.#passCount > MAX_MEMORY_PASSES) {
      throw new UsageError(
        "the VM changes its memory faster than it can be saved: save it with the VM paused",
      );
    }
    this.#sink.nextMemoryPass();
    for (const bitmap of this.#inPass) bitmap.fill(0);
  }

  /** Data comes after zeros: a long run of them stands alone, a short one goes into the window. */
  #closeZeros(): void {
    const zeroBytes = this.#zeroBytes;
    if (zeroBytes >= LEAST_HOLE_BYTES || this.#dataBytes === 0 || this.#windows.roomBytes < zeroBytes) {
      this.#flush();
      return;
    }
    this.#windows.appendZeros(zeroBytes);
    this.#dataBytes += zeroBytes;
    this.#zeroBytes = 0;
  }

  #flush(): void {
    this.#flushData();
    if (this.#zeroBytes === 0) return;
    this.#sink.writeHole(this.#block, this.#start, this.#zeroBytes);
    this.#start += this.#zeroBytes;
    this.#zeroBytes = 0;
  }

  #flushData(): void {
    if (this.#dataBytes === 0) return;
    this.#windows.write(this.#block, this.#start);
    this.#start += this.#dataBytes;
    this.#dataBytes = 0;
  }
}

function isSet(bitmap: Uint8Array, bit: number): boolean {
  return ((bitmap[bit >>> 3] as number) & (1 << (bit & 7))) !== 0;
}

function set(bitmap: Uint8Array, bit: number): void {
  bitmap[bit >>> 3]! |= 1 << (bit & 7);
}
