import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { MAX_MEM_SLOTS, MAX_SNAPSHOT_REGION_BYTES } from "../../src/limits.ts";
import { RAM_FLAG, type RamBlock, TARGET_PAGE_BYTES } from "./stream-format.ts";
import type { StreamInput } from "./stream-input.ts";

/** What a stream says about guest memory. Bytes are valid during the call. */
export interface RamSink {
  /** Once, before all pages. */
  blocks(blocks: readonly RamBlock[]): void;
  /** A page may come again: the later content holds. */
  page(block: number, offset: number, bytes: Uint8Array): void;
  zeroPage(block: number, offset: number): void;
  /** The VM has stopped, its devices are quiet: memory stays as it is now, and what comes is the last of it. */
  standsStill?(): void;
  /** Pages come through multifd channels, which are synchronised here. Without it, such a stream is refused. */
  flush?(): void;
  sectionEnd?(): void;
}

export type RamRecord = "blocks" | "page" | "flush" | "end";

const FLAGS_MASK = TARGET_PAGE_BYTES - 1;

/** What makes a stream one that cannot be saved as it is; the driver switches these off, so only foreign files have them. */
const REFUSED: readonly (readonly [flag: number, name: string])[] = [
  [RAM_FLAG.xbzrle, "XBZRLE"],
  [RAM_FLAG.hook, "RDMA"],
  [RAM_FLAG.compressed, "the old page compression"],
  [RAM_FLAG.multifdFlush, "multifd"],
];

/** Reads the records of a RAM section, version 4. */
export class RamReader {
  readonly #sink: RamSink;
  readonly #scratch = new Uint8Array(TARGET_PAGE_BYTES);
  #blocks: readonly RamBlock[] | undefined;
  #numbers = new Map<string, number>();
  #current = -1;

  constructor(sink: RamSink) {
    this.#sink = sink;
  }

  get blocks(): readonly RamBlock[] | undefined {
    return this.#blocks;
  }

  /** One record. @throws FormatError, CompatibilityError, NEED_MORE */
  read(input: StreamInput): RamRecord {
    const { high, low } = input.u64();
    const flags = low & FLAGS_MASK;
    const address = high * 2 ** 32 + (low - flags);
    if (flags === RAM_FLAG.endOfSection) {
      this.#sink.sectionEnd?.();
      return "end";
    }
    if (flags === RAM_FLAG.multifdFlush && this.#sink.flush !== undefined) {
      this.#sink.flush();
      return "flush";
    }
    if (flags === RAM_FLAG.memSize) {
      this.#readBlocks(input, address);
      return "blocks";
    }
    const kind = flags & ~RAM_FLAG.sameBlock;
    if (kind !== RAM_FLAG.page && kind !== RAM_FLAG.zero) throw refusal(flags, input.offset - 8);
    const block = (flags & RAM_FLAG.sameBlock) === 0 ? this.#blockOf(input) : this.#current;
    this.#check(block, address, input.offset);
    if (kind === RAM_FLAG.page) {
      const bytes = input.take(TARGET_PAGE_BYTES);
      this.#sink.page(block, address, bytes);
    } else {
      const fill = input.u8();
      if (fill === 0) this.#sink.zeroPage(block, address);
      else this.#sink.page(block, address, this.#scratch.fill(fill));
    }
    this.#current = block;
    return "page";
  }

  #blockOf(input: StreamInput): number {
    const name = input.string("the name of a memory block");
    const block = this.#numbers.get(name);
    if (block !== undefined) return block;
    throw new FormatError(
      `a page is of the memory block "${name}", which was not announced`,
      "RAM",
      input.offset,
    );
  }

  #check(block: number, address: number, offset: number): void {
    const sizeBytes = this.#blocks?.[block]?.sizeBytes;
    if (sizeBytes === undefined) throw new FormatError("a page comes before its memory block", "RAM", offset);
    if (address + TARGET_PAGE_BYTES > sizeBytes) {
      throw new FormatError(`a page lies at 0x${address.toString(16)}, outside its block`, "RAM", offset);
    }
  }

  #readBlocks(input: StreamInput, totalBytes: number): void {
    if (this.#blocks !== undefined)
      throw new FormatError("the memory blocks come twice", "RAM", input.offset);
    const blocks: RamBlock[] = [];
    const numbers = new Map<string, number>();
    let sum = 0;
    while (sum < totalBytes) {
      const name = input.string("the name of a memory block");
      const sizeBytes = input.size("a memory block");
      const isFit =
        sizeBytes > 0 && sizeBytes % TARGET_PAGE_BYTES === 0 && sizeBytes <= MAX_SNAPSHOT_REGION_BYTES;
      if (!isFit || numbers.has(name) || blocks.length === MAX_MEM_SLOTS) {
        const message = `the memory block "${name}" of ${sizeBytes} bytes is given twice, one too many, or of no size that can be`;
        throw new FormatError(message, "RAM", input.offset);
      }
      numbers.set(name, blocks.length);
      blocks.push({ name, sizeBytes });
      sum += sizeBytes;
    }
    if (sum !== totalBytes) {
      throw new FormatError(
        `the memory blocks have ${sum} bytes, ${totalBytes} were announced`,
        "RAM",
        input.offset,
      );
    }
    this.#blocks = blocks;
    this.#numbers = numbers;
    this.#sink.blocks(blocks);
  }
}

function refusal(flags: number, offset: number): Error {
  const name = REFUSED.find(([flag]) => (flags & flag) !== 0)?.[1];
  if (name === undefined)
    return new FormatError(`flags 0x${flags.toString(16)} are not known`, "RAM", offset);
  return new CompatibilityError(`the stream was made with ${name}: switch it off and save again`, {
    details: { flags, offset },
  });
}
