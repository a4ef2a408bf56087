import { availableParallelism } from "node:os";
import type { DiskSink } from "../driver.ts";
import type { CompressSetting } from "./compression-level.ts";
import { DISK_WINDOW_BYTES, type DiskChunk, diskChecksum, encodeDiskChunk } from "./disk-chunk.ts";
import { FrameType } from "./frame.ts";
import type { RateLimit } from "./rate-limit.ts";
import { streamOf } from "./region-table.ts";
import type { Session } from "./session.ts";

/** Zeros are looked for in pieces of this size, and what was sent is remembered in them. */
const PIECE_BYTES = 64 << 10;
const ZEROS = new Uint8Array(PIECE_BYTES);
const NOTHING = new Uint8Array(0);
const AUTO_LEVEL = 1;
/** What is packed to more than this is sent as it is; and so are as many chunks after it, unseen. */
const POOR_RATIO = 0.95;
const UNSEEN_CHUNKS = 15;

/** One disk on its way. */
export interface SentDisk {
  readonly path: string;
  /** Of the disk, as often as they were given; zeros only where something else was before. */
  givenBytes: number;
  /** As they went out. */
  packedBytes: number;
  chunks: number;
}

export interface DiskSenderOptions {
  /** In the order that both sides count them in. */
  readonly paths: readonly string[];
  readonly rate: RateLimit;
  readonly compress: CompressSetting;
  readonly onGiven?: (() => void) | undefined;
}

/**
 * Sends the content of disks. The other side's are empty at first, so zeros go out only where something else did before.
 * Compression runs on threads of Bun's own, beside this one.
 */
export class DiskSender implements DiskSink {
  readonly disks: readonly SentDisk[];
  readonly #session: Session;
  readonly #options: DiskSenderOptions;
  readonly #sent = new Map<number, Set<number>>();
  #unseen = 0;

  constructor(session: Session, options: DiskSenderOptions) {
    this.#session = session;
    this.#options = options;
    this.disks = options.paths.map((path) => ({ path, givenBytes: 0, packedBytes: 0, chunks: 0 }));
  }

  /** Calls that may be under way at once and still go faster for it. */
  readonly parallel = 2 * Math.max(2, availableParallelism());

  async write(disk: number, offset: number, bytes: Uint8Array): Promise<void> {
    const sending: Promise<void>[] = [];
    for (const piece of piecesOf(offset, bytes)) {
      sending.push(this.#piece(disk, piece.offset, piece.sizeBytes, piece.bytes));
    }
    await all(sending);
  }

  async zero(disk: number, offset: number, sizeBytes: number): Promise<void> {
    const sending: Promise<void>[] = [];
    for (let at = offset; at < offset + sizeBytes; ) {
      const size = Math.min(DISK_WINDOW_BYTES - (at % DISK_WINDOW_BYTES), offset + sizeBytes - at);
      sending.push(this.#piece(disk, at, size, undefined));
      at += size;
    }
    await all(sending);
  }

  /** @param bytes undefined: zeros */
  async #piece(
    disk: number,
    offset: number,
    sizeBytes: number,
    bytes: Uint8Array | undefined,
  ): Promise<void> {
    const sent = this.#sent.get(disk) ?? new Set<number>();
    this.#sent.set(disk, sent);
    if (bytes === undefined) {
      if (!numbersOf(offset, sizeBytes).some((number) => sent.has(number))) return;
      return this.#send({ disk, offset, sizeBytes, codec: "zero", checksum: 0n, frame: NOTHING });
    }
    for (const number of numbersOf(offset, sizeBytes)) sent.add(number);
    const checksum = diskChecksum(bytes);
    const frame = await this.#pack(bytes);
    const codec = frame === undefined ? ("plain" as const) : ("zstd" as const);
    return this.#send({ disk, offset, sizeBytes, codec, checksum, frame: frame ?? bytes });
  }

  async #pack(bytes: Uint8Array): Promise<Uint8Array | undefined> {
    const { compress } = this.#options;
    if (compress === "none" || this.#unseen > 0) {
      this.#unseen -= 1;
      return undefined;
    }
    const level = compress === "auto" ? AUTO_LEVEL : Math.max(compress, AUTO_LEVEL);
    const frame = await Bun.zstdCompress(bytes, { level });
    if (frame.length < bytes.length * POOR_RATIO) return frame;
    this.#unseen = UNSEEN_CHUNKS;
    return undefined;
  }

  async #send(chunk: DiskChunk): Promise<void> {
    const payload = encodeDiskChunk(chunk);
    const waitMs = this.#options.rate.takeMs(payload.length);
    if (waitMs > 0) await Bun.sleep(waitMs);
    const stream = streamOf(chunk.disk, chunk.offset, this.#session.identity.streams);
    await this.#session.send(stream, FrameType.disk, payload);
    const disk = this.disks[chunk.disk] as SentDisk;
    disk.givenBytes += chunk.sizeBytes;
    disk.packedBytes += payload.length;
    disk.chunks += 1;
    this.#options.onGiven?.();
  }
}

/** Runs of zeros and of other bytes, none of which crosses a window. */
function* piecesOf(offset: number, bytes: Uint8Array) {
  let from = 0;
  let isZero: boolean | undefined;
  for (let at = 0; at < bytes.length; ) {
    const size = Math.min(PIECE_BYTES - ((offset + at) % PIECE_BYTES), bytes.length - at);
    const zero = Buffer.compare(bytes.subarray(at, at + size), ZEROS.subarray(0, size)) === 0;
    const isNext = zero !== isZero || (offset + at) % DISK_WINDOW_BYTES === 0;
    if (at > from && isNext) {
      yield piece(offset, bytes, from, at, isZero);
      from = at;
    }
    isZero = zero;
    at += size;
  }
  if (bytes.length > from) yield piece(offset, bytes, from, bytes.length, isZero);
}

function piece(offset: number, bytes: Uint8Array, from: number, to: number, isZero: boolean | undefined) {
  return {
    offset: offset + from,
    sizeBytes: to - from,
    bytes: isZero ? undefined : bytes.subarray(from, to),
  };
}

function numbersOf(offset: number, sizeBytes: number): number[] {
  const first = Math.floor(offset / PIECE_BYTES);
  const last = Math.floor((offset + sizeBytes - 1) / PIECE_BYTES);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}

/** All to their ends, whatever becomes of one: their bytes are the caller's again afterwards. */
async function all(promises: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(promises);
  await Promise.all(promises);
}
