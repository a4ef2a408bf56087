import { readSync, writeSync } from "node:fs";
import { FormatError, SyscallError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { type Fd, punchHole } from "../../src/sys/mod.ts";
import { createZstd, MEMORY_PAGE_BYTES, type SnapshotRegion, type Zstd } from "../snapshot/mod.ts";
import { decodeWindow, type MemoryWindow, type WindowRun } from "./memory-window.ts";
import { checksumOf } from "./window-packer.ts";

interface Region {
  readonly fd: Fd;
  readonly sizeBytes: number;
}

/** Puts windows into the memory of a machine that is yet to run: each as a whole, after its checksum held. */
export class ReceivedMemory {
  readonly #regions: ReadonlyMap<number, Region>;
  readonly #zstd: Zstd = createZstd();
  readonly #plain = new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES);
  readonly #whole = new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES);
  readonly #page = new Uint8Array(MEMORY_PAGE_BYTES);
  /** Bytes of memory that came, zeros and duplicates included. */
  memoryBytes = 0;

  /** @param fdOf The memfd of each region; it stays the caller's. */
  constructor(regions: readonly SnapshotRegion[], fdOf: (regionId: number) => Fd) {
    this.#regions = new Map(regions.map(({ id, sizeBytes }) => [id, { fd: fdOf(id), sizeBytes }]));
  }

  /** @throws FormatError; nothing of the window is in the memory then */
  apply(payload: Uint8Array): void {
    const window = decodeWindow(payload);
    const plain = this.#plain.subarray(0, window.plainBytes);
    if (window.codec === "plain") plain.set(window.frame);
    else if (window.plainBytes > 0) this.#decompress(plain, window.frame);
    const sizeBytes = sum(window.runs) * MEMORY_PAGE_BYTES;
    const region = this.#region(window.regionId, window.offset, sizeBytes);
    const whole = this.#whole.subarray(0, sizeBytes);
    this.#assemble(whole, window, plain, region);
    const pieces = piecesOf(window.runs);
    if (checksumOf(whole, pieces) !== window.checksum) throw fault("its checksum does not hold", window);
    for (const piece of pieces) {
      const at = window.offset + piece.offset;
      if (piece.isZero) punchHole(region.fd, at, piece.sizeBytes);
      else writeFully(region.fd, whole.subarray(piece.offset, piece.offset + piece.sizeBytes), at);
    }
    this.memoryBytes += sizeBytes;
  }

  #assemble(whole: Uint8Array, window: MemoryWindow, plain: Uint8Array, region: Region): void {
    let [at, taken] = [0, 0];
    for (const run of window.runs) {
      const sizeBytes = run.pages * MEMORY_PAGE_BYTES;
      const part = whole.subarray(at, at + sizeBytes);
      if (run.kind === "duplicate") this.#duplicate(part, whole, at, window, run);
      else if (run.kind !== "zero") {
        part.set(plain.subarray(taken, taken + sizeBytes));
        if (run.kind === "delta") this.#addPresent(part, region.fd, window.offset + at);
        taken += sizeBytes;
      }
      at += sizeBytes;
    }
  }

  /** What is elsewhere in the memory, or a page at a time earlier in the same window. */
  #duplicate(
    part: Uint8Array,
    whole: Uint8Array,
    at: number,
    window: MemoryWindow,
    run: Extract<WindowRun, { kind: "duplicate" }>,
  ): void {
    const source = this.#region(run.regionId, run.offset, part.length);
    for (let page = 0; page < part.length; page += MEMORY_PAGE_BYTES) {
      const from = run.offset + page;
      const target = part.subarray(page, page + MEMORY_PAGE_BYTES);
      const within = run.regionId === window.regionId ? from - window.offset : -1;
      if (within < 0 || within >= whole.length) readFully(source.fd, target, from);
      else if (within < at + page) target.set(whole.subarray(within, within + MEMORY_PAGE_BYTES));
      else throw fault("a page is said to equal one that comes later", window);
    }
  }

  #addPresent(part: Uint8Array, fd: Fd, offset: number): void {
    const present = new Int32Array(this.#page.buffer);
    for (let page = 0; page < part.length; page += MEMORY_PAGE_BYTES) {
      readFully(fd, this.#page, offset + page);
      const words = new Int32Array(part.buffer, part.byteOffset + page, present.length);
      for (let i = 0; i < present.length; i += 1) words[i] = (words[i] as number) ^ (present[i] as number);
    }
  }

  #decompress(plain: Uint8Array, frame: Uint8Array): void {
    try {
      this.#zstd.decompress(plain, frame);
    } catch (cause) {
      throw new FormatError(`a zstd frame is damaged: ${(cause as Error).message}`, "memory window", -1, {
        cause,
      });
    }
  }

  #region(id: number, offset: number, sizeBytes: number): Region {
    const region = this.#regions.get(id);
    if (region !== undefined && offset + sizeBytes <= region.sizeBytes) return region;
    throw new FormatError(`${sizeBytes} bytes at ${offset} are not in memory region ${id}`, "memory window");
  }
}

/** Runs of zeros, and what is between them in one piece: as the sender has hashed them. */
function piecesOf(runs: readonly WindowRun[]): { offset: number; sizeBytes: number; isZero: boolean }[] {
  const pieces: { offset: number; sizeBytes: number; isZero: boolean }[] = [];
  let offset = 0;
  for (const { kind, pages } of runs) {
    const [sizeBytes, isZero, last] = [pages * MEMORY_PAGE_BYTES, kind === "zero", pieces.at(-1)];
    if (last?.isZero === isZero) last.sizeBytes += sizeBytes;
    else pieces.push({ offset, sizeBytes, isZero });
    offset += sizeBytes;
  }
  return pieces;
}

function sum(runs: readonly WindowRun[]): number {
  return runs.reduce((total, { pages }) => total + pages, 0);
}

function fault(message: string, { regionId, offset }: MemoryWindow): FormatError {
  return new FormatError(
    `the memory at ${offset} of region ${regionId} did not arrive well: ${message}`,
    "memory window",
  );
}

function readFully(fd: Fd, target: Uint8Array, at: number): void {
  for (let done = 0; done < target.length; ) {
    const count = readSync(fd.number, target, done, target.length - done, at + done);
    if (count === 0) throw new SyscallError("pread", "EIO", "the memory is shorter than it was made");
    done += count;
  }
}

function writeFully(fd: Fd, bytes: Uint8Array, at: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd.number, bytes, done, bytes.length - done, at + done);
  }
}
