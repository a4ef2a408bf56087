import { readSync, writeSync } from "node:fs";
import { FormatError, SyscallError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { type Fd, punchHole } from "../../src/sys/mod.ts";
import { createZstd, MEMORY_PAGE_BYTES, type SnapshotRegion, type Zstd } from "../snapshot/mod.ts";
import { decodeWindow, type WindowRun } from "./memory-window.ts";

type ReceivedWindow = ReturnType<typeof decodeWindow>;

interface Region {
  readonly id: number;
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
    this.#regions = new Map(regions.map(({ id, sizeBytes }) => [id, { id, fd: fdOf(id), sizeBytes }]));
  }

  /** @throws FormatError; nothing of the window is in the memory then */
  apply(payload: Uint8Array): void {
    const window = decodeWindow(payload);
    const plain = this.#plainOf(window);
    const region = this.#region(window.regionId);
    let sizeBytes = 0;
    let isPlain = true;
    for (const { kind, offset, pages } of window.runs) {
      requireWithin(region, offset, pages * MEMORY_PAGE_BYTES);
      if (kind === "delta" || kind === "duplicate") isPlain = false;
      if (kind !== "zero") sizeBytes += pages * MEMORY_PAGE_BYTES;
    }
    const whole = isPlain ? plain : this.#whole.subarray(0, sizeBytes);
    if (!isPlain) this.#assemble(whole, window.runs, plain, region);
    if (xxh3(whole) !== window.checksum) throw fault("its checksum does not hold", window);
    this.#write(window.runs, whole, region);
  }

  #plainOf({ codec, frame, plainBytes }: ReceivedWindow): Uint8Array {
    if (codec === "plain") return frame;
    const plain = this.#plain.subarray(0, plainBytes);
    if (plainBytes > 0) this.#decompress(plain, frame);
    return plain;
  }

  #assemble(whole: Uint8Array, runs: readonly WindowRun[], plain: Uint8Array, region: Region): void {
    let [at, taken] = [0, 0];
    for (const run of runs) {
      if (run.kind === "zero") continue;
      const sizeBytes = run.pages * MEMORY_PAGE_BYTES;
      const part = whole.subarray(at, at + sizeBytes);
      at += sizeBytes;
      if (run.kind === "duplicate") {
        const source = this.#region(run.sourceRegionId);
        requireWithin(source, run.sourceOffset, sizeBytes);
        readFully(source.fd, part, run.sourceOffset);
        continue;
      }
      part.set(plain.subarray(taken, taken + sizeBytes));
      taken += sizeBytes;
      if (run.kind === "delta") this.#addPresent(part, region.fd, run.offset);
    }
  }

  /** What follows each other goes in one piece. */
  #write(runs: readonly WindowRun[], whole: Uint8Array, { fd }: Region): void {
    let [start, end, offset] = [0, 0, 0];
    const flush = () => {
      if (end > start) writeFully(fd, whole.subarray(start, end), offset);
      start = end;
    };
    for (const run of runs) {
      const sizeBytes = run.pages * MEMORY_PAGE_BYTES;
      this.memoryBytes += sizeBytes;
      if (run.kind === "zero") {
        punchHole(fd, run.offset, sizeBytes);
        continue;
      }
      if (run.offset !== offset + end - start) {
        flush();
        offset = run.offset;
      }
      end += sizeBytes;
    }
    flush();
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

  #region(id: number): Region {
    const region = this.#regions.get(id);
    if (region !== undefined) return region;
    throw new FormatError(`there is no memory region ${id}`, "memory window");
  }
}

function requireWithin({ id, sizeBytes: size }: Region, offset: number, sizeBytes: number): void {
  if (offset + sizeBytes <= size) return;
  throw new FormatError(`${sizeBytes} bytes at ${offset} are not in memory region ${id}`, "memory window");
}

function fault(message: string, { regionId, runs }: ReceivedWindow): FormatError {
  return new FormatError(
    `the memory at ${runs[0]?.offset} of region ${regionId} did not arrive well: ${message}`,
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
