import { tmpdir } from "node:os";
import { FormatError } from "../errors.ts";
import { MAX_DEVICE_STATE_BYTES, MAX_IN_MEMORY_STATE_BYTES, STATE_CHUNK_BYTES } from "../limits.ts";
import {
  type Fd,
  IoVector,
  NativeBuffer,
  openTemporaryFile,
  readAt,
  syscallError,
  writeAt,
} from "../sys/mod.ts";

export interface SpoolOptions {
  /** Where the unnamed file goes. Default: the system's temporary folder. */
  readonly folder?: string | undefined;
  readonly maxBytes?: number | undefined;
  /** What stays in memory before a file is used. */
  readonly inMemoryBytes?: number | undefined;
}

/**
 * A device state on its way in: in memory while it is small, in a file without a name from then on.
 * It can be read from the start as often as one likes, which lets a state be checked before anyone sees it.
 */
export class StateSpool implements Disposable {
  #memory: Uint8Array[] = [];
  #file: Fd | undefined;
  #sizeBytes = 0;
  readonly #buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  readonly #vector = new IoVector(1);

  constructor(readonly options: SpoolOptions = {}) {}

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** @throws FormatError over the limit, SyscallError when the disk is full */
  append(bytes: Uint8Array): void {
    const maxBytes = this.options.maxBytes ?? MAX_DEVICE_STATE_BYTES;
    if (this.#sizeBytes + bytes.length > maxBytes) {
      throw new FormatError(
        `the state is larger than the limit of ${maxBytes} bytes`,
        "device state",
        this.#sizeBytes,
      );
    }
    const inMemoryBytes = this.options.inMemoryBytes ?? MAX_IN_MEMORY_STATE_BYTES;
    if (this.#file === undefined && this.#sizeBytes + bytes.length > inMemoryBytes) this.#moveToFile();
    if (this.#file === undefined) this.#memory.push(bytes.slice());
    else this.#write(bytes, this.#sizeBytes);
    this.#sizeBytes += bytes.length;
  }

  /** The bytes from the start. A chunk is valid until the next is pulled. */
  *chunks(): Generator<Uint8Array> {
    if (this.#file === undefined) {
      yield* this.#memory;
      return;
    }
    for (let offset = 0; offset < this.#sizeBytes; ) {
      const size = Math.min(STATE_CHUNK_BYTES, this.#sizeBytes - offset);
      this.#vector.clear();
      this.#vector.push(this.#buffer.address, size);
      if (readAt(this.#file, this.#vector, offset) !== size) throw syscallError("preadv", this.#file.label);
      yield this.#buffer.bytes.subarray(0, size);
      offset += size;
    }
  }

  [Symbol.dispose](): void {
    this.#memory = [];
    this.#file?.[Symbol.dispose]();
  }

  #moveToFile(): void {
    this.#file = openTemporaryFile(this.options.folder ?? tmpdir());
    let offset = 0;
    for (const piece of this.#memory) {
      this.#write(piece, offset);
      offset += piece.length;
    }
    this.#memory = [];
  }

  #write(bytes: Uint8Array, offset: number): void {
    for (let done = 0; done < bytes.length; ) {
      const piece = bytes.subarray(done, done + STATE_CHUNK_BYTES);
      this.#buffer.bytes.set(piece);
      this.#vector.clear();
      this.#vector.push(this.#buffer.address, piece.length);
      if (writeAt(this.#file!, this.#vector, offset + done) !== piece.length) {
        throw syscallError("pwritev", `${this.#file!.label}, spooling a device state`);
      }
      done += piece.length;
    }
  }
}
