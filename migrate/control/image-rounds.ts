import { read } from "node:fs";
import { promisify } from "node:util";
import { StateError, SyscallError } from "../../src/errors.ts";
import { dataRanges, type Fd } from "../../src/sys/mod.ts";
import type { DiskSink } from "../driver.ts";
import type { ChangedRange, DeviceControlClient } from "./device-control-client.ts";

/** Given to the sink at once. */
const PIECE_BYTES = 1 << 20;
/** So little is not worth another round before the memory is looked at, too. */
const LITTLE_BYTES = 16 << 20;
/** A guest that writes as fast as we copy is not followed for ever. */
const MAX_ROUNDS = 8;
/** Unless told otherwise, the rest of a disk may hold the machine up for so long. */
const DEFAULT_REST_MS = 100;
/** So little never does. */
const NEGLIGIBLE_BYTES = 256 << 10;

export interface ImageRoundsOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long the machine may stand still. */
  readonly downtimeMaxMs?: number | undefined;
}

/**
 * Copies the image of a back-end of vhu's own while it is written: all that is no hole, then round after round what was written
 * since, and the rest when nothing is written any more. Owns its client.
 */
export class ImageRounds implements Disposable {
  /** What has changed and was not copied yet. */
  #left: readonly ChangedRange[] = [];
  #bytesPerMs = Number.POSITIVE_INFINITY;

  private constructor(
    readonly client: DeviceControlClient,
    readonly image: Fd,
    readonly disk: number,
    readonly sizeBytes: number,
    readonly sink: DiskSink,
    readonly options: ImageRoundsOptions,
  ) {}

  /**
   * @param disk The sink's number of it.
   * @throws StateError where somebody else copies it; what the device reports
   */
  static async begin(
    client: DeviceControlClient,
    disk: number,
    sink: DiskSink,
    options: ImageRoundsOptions = {},
  ): Promise<ImageRounds> {
    using stack = new DisposableStack();
    stack.use(client);
    const { image: found } = await client.status({ command: "status" });
    if (found === undefined) throw new StateError("the back-end has no image that could be copied");
    const image = stack.use(await client.image());
    if (!(await client.track())) {
      throw new StateError(`${found.path} is being copied by another vhu: wait for that, or end it`);
    }
    stack.move();
    return new ImageRounds(client, image, disk, found.capacityBytes, sink, options);
  }

  /** All of it, and what was written meanwhile, until that is little or gets no less. */
  async first(): Promise<void> {
    await this.#copy([...dataRanges(this.image, this.sizeBytes)]);
    let before = Number.POSITIVE_INFINITY;
    for (let round = 0; round < MAX_ROUNDS; round++) {
      this.#left = await this.#changes();
      const bytes = bytesOf(this.#left);
      if (bytes <= LITTLE_BYTES || bytes >= before) return;
      before = bytes;
      await this.#copy(this.#left);
    }
    this.#left = [];
  }

  /** Copies what is left over from before. Returns what has been written since, in bytes. */
  async round(): Promise<number> {
    await this.#copy(this.#left);
    this.#left = await this.#changes();
    return bytesOf(this.#left);
  }

  /** Whether what is left is expected to take no longer than the machine may stand still. */
  get isNear(): boolean {
    const bytes = bytesOf(this.#left);
    const restMs = this.options.downtimeMaxMs ?? DEFAULT_REST_MS;
    return bytes <= NEGLIGIBLE_BYTES || bytes / this.#bytesPerMs <= restMs;
  }

  /** Nothing is written any more: afterwards the copy is the image. */
  async last(): Promise<void> {
    const changed = await this.#changes();
    await this.#copy(this.#left);
    await this.#copy(changed);
    this.#left = [];
  }

  /** Nothing is tracked any more. */
  [Symbol.dispose](): void {
    this.image[Symbol.dispose]();
    this.client[Symbol.dispose]();
  }

  async #changes(): Promise<readonly ChangedRange[]> {
    const ranges = await this.client.changes();
    if (ranges !== undefined) return ranges;
    throw new StateError("the image got another size while it was copied: begin anew");
  }

  /** A range after the other, some pieces of it at a time; over when the sink has all. */
  async #copy(ranges: readonly ChangedRange[]): Promise<void> {
    const startMs = performance.now();
    const pieces = piecesOf(ranges);
    const work = async () => {
      const buffer = new Uint8Array(PIECE_BYTES);
      for (const { offset, sizeBytes } of pieces) {
        this.options.signal?.throwIfAborted();
        const bytes = buffer.subarray(0, sizeBytes);
        await readFully(this.image, bytes, offset);
        await this.sink.write(this.disk, offset, bytes);
      }
    };
    // They share the one generator: each takes the next piece that nobody has.
    const workers = Array.from({ length: this.sink.parallel }, work);
    await Promise.allSettled(workers);
    await Promise.all(workers);
    const bytes = bytesOf(ranges);
    if (bytes > NEGLIGIBLE_BYTES) this.#bytesPerMs = bytes / Math.max(performance.now() - startMs, 0.1);
  }
}

function* piecesOf(ranges: readonly ChangedRange[]): Generator<ChangedRange> {
  for (const { offset, sizeBytes } of ranges) {
    for (let at = offset; at < offset + sizeBytes; ) {
      const size = Math.min(PIECE_BYTES - (at % PIECE_BYTES), offset + sizeBytes - at);
      yield { offset: at, sizeBytes: size };
      at += size;
    }
  }
}

function bytesOf(ranges: readonly ChangedRange[]): number {
  return ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

const readAsync = promisify(read);

/** Off this thread: the disk may be slow. */
async function readFully(fd: Fd, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await readAsync(fd.number, bytes, done, bytes.length - done, offset + done);
    if (bytesRead === 0)
      throw new SyscallError("pread", "EIO", `${fd.label}: the image is shorter than it was`);
    done += bytesRead;
  }
}
