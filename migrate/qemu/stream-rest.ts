import { CompatibilityError } from "../../src/errors.ts";
import { MAX_QEMU_STREAM_BYTES } from "../../src/limits.ts";

/** The bytes of a stream that are not pages of memory, in their order. */
export class StreamRest {
  #bytes = new Uint8Array(64 * 1024);
  #sizeBytes = 0;

  append(bytes: Uint8Array): void {
    const sizeBytes = this.#sizeBytes + bytes.length;
    if (sizeBytes > MAX_QEMU_STREAM_BYTES) {
      throw new CompatibilityError(
        `the device state of this VM is larger than ${MAX_QEMU_STREAM_BYTES} bytes: it cannot be saved`,
      );
    }
    if (sizeBytes > this.#bytes.length) {
      const grown = new Uint8Array(Math.min(2 * sizeBytes, MAX_QEMU_STREAM_BYTES));
      grown.set(this.#bytes.subarray(0, this.#sizeBytes));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#sizeBytes);
  }
}
