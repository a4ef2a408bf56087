import { FormatError } from "../../src/errors.ts";
import { disposeAll } from "../../src/sys/mod.ts";
import { createZstd, type Zstd } from "../snapshot/mod.ts";
import { type ImageIdentity, type ImageOutline, NewImage, removeImage } from "../storage/mod.ts";
import { DISK_WINDOW_BYTES, type DiskChunk, decodeDiskChunk, diskChecksum } from "./disk-chunk.ts";
import type { Frame } from "./frame.ts";
import { streamOf } from "./region-table.ts";

/** The disks that are copied here with their machine: new images, filled in any order. */
export class ArrivingDisks implements Disposable {
  readonly #images: NewImage[] = [];
  readonly #zstd: Zstd = createZstd();
  readonly #plain = new Uint8Array(DISK_WINDOW_BYTES);
  readonly #made: ImageIdentity[] = [];
  readonly #chunks: number[];
  receivedBytes = 0;

  /**
   * @param note Told each file before it has its name.
   * @param streams Data streams of the session.
   */
  constructor(
    readonly outlines: readonly ImageOutline[],
    readonly streams: number,
    readonly note: (identity: ImageIdentity) => void,
  ) {
    this.#chunks = outlines.map(() => 0);
  }

  /** Makes the images, as empty disks. @throws StateError where a name is taken, SyscallError */
  create(): void {
    for (const outline of this.outlines) {
      const image = NewImage.create(outline, this.note);
      this.#images.push(image);
      this.#made.push(image.identity);
    }
  }

  /** @throws FormatError; SyscallError, e.g. where the file system is full */
  take({ payload, stream }: Frame): void {
    const chunk = decodeDiskChunk(payload);
    const { disk, offset, sizeBytes, codec } = chunk;
    const image = this.#images[disk];
    if (image === undefined || offset + sizeBytes > image.outline.virtualBytes) {
      throw new FormatError(`${sizeBytes} bytes at ${offset} are not in disk ${disk}`, "disk chunk");
    }
    if (streamOf(disk, offset, this.streams) !== stream) {
      throw new FormatError("a part of a disk came in another stream than its own", `stream ${stream}`);
    }
    if (codec === "zero") image.zero(offset, sizeBytes);
    else image.write(offset, this.#bytesOf(chunk));
    this.#chunks[disk] = (this.#chunks[disk] ?? 0) + 1;
    this.receivedBytes += sizeBytes;
  }

  /** All of it is here: the images are what they should be. @throws FormatError when the sender has counted otherwise */
  complete(chunks: readonly number[]): void {
    if (!Bun.deepEquals(chunks, this.#chunks)) {
      throw new FormatError(`${this.#chunks} parts of the disks came, of ${chunks} that were sent`, "end");
    }
    for (const image of this.#images) image.complete();
  }

  /** Makes them durable. @throws SyscallError */
  async sync(): Promise<void> {
    await Promise.all(this.#images.map((image) => image.sync()));
  }

  /** Begins to make durable what has come so far. */
  syncLater(): void {
    for (const image of this.#images) image.syncLater();
  }

  /** The machine is not to run here: nothing of them stays. */
  remove(): void {
    for (const identity of this.#made) removeImage(identity);
  }

  [Symbol.dispose](): void {
    disposeAll(this.#images.splice(0));
  }

  #bytesOf({ frame, codec, sizeBytes, checksum }: DiskChunk): Uint8Array {
    const bytes = codec === "plain" ? frame : this.#plain.subarray(0, sizeBytes);
    if (codec === "zstd") {
      try {
        this.#zstd.decompress(bytes, frame);
      } catch (cause) {
        throw new FormatError(`a zstd frame is damaged: ${(cause as Error).message}`, "disk chunk", -1, {
          cause,
        });
      }
    }
    if (diskChecksum(bytes) === checksum) return bytes;
    throw new FormatError("a part of a disk did not arrive well: its checksum does not hold", "disk chunk");
  }
}
