import { StateError } from "../errors.ts";
import { MAX_WINDOW_BYTES } from "../limits.ts";
import { type Fd, Mapping, sizeOf } from "../sys/mod.ts";
import { hex, PAGE_BYTES } from "./memory-region.ts";
import { requireSealed } from "./require-sealed.ts";

/** Where the log lies in its file, as SET_LOG_BASE says it. */
export interface DirtyLogPlace {
  readonly sizeBytes: number;
  readonly offset: number;
}

/** A mapped log, for another thread of this process. Survives a structured clone. */
export interface SharedDirtyLog {
  readonly address: number;
  readonly sizeBytes: number;
}

/**
 * The bitmap of SET_LOG_BASE: one bit per 4 KiB page of guest-physical memory, page p at bit p % 8 of byte p / 8.
 * The front-end reads and clears it while we set bits, so each is set by an atomic OR, after the data was written.
 */
export class DirtyLog implements Disposable {
  readonly #mapping: Mapping;
  readonly #bits: Uint8Array;
  #overflowed = false;

  readonly #address: number;

  private constructor(mapping: Mapping, start: number, sizeBytes: number) {
    this.#mapping = mapping;
    this.#address = mapping.address + start;
    this.#bits = new Uint8Array(mapping.window(start, sizeBytes));
  }

  /**
   * Maps the log. Takes the fd and closes it.
   * @throws StateError when it is empty, too large, longer than its file or (with `demandSeals`) shrinkable
   */
  static fromFd(fd: Fd, place: DirtyLogPlace, demandSeals = false): DirtyLog {
    using owned = fd;
    if (demandSeals) requireSealed(owned, "the dirty log's file");
    const { sizeBytes, offset } = place;
    if (!Number.isSafeInteger(offset) || offset < 0 || !(sizeBytes > 0 && sizeBytes <= MAX_WINDOW_BYTES)) {
      throw new StateError(`a dirty log of ${sizeBytes} bytes at offset ${offset} is not possible`, {
        details: { sizeBytes, offset },
      });
    }
    const fileBytes = sizeOf(owned);
    if (fileBytes < offset + sizeBytes) {
      throw new StateError(`the dirty log's file has ${fileBytes} bytes, ${offset + sizeBytes} are needed`, {
        details: { sizeBytes, offset, fileBytes },
      });
    }
    const start = offset % PAGE_BYTES;
    const mapping = Mapping.ofFd(owned, { sizeBytes: start + sizeBytes, offset: offset - start });
    return new DirtyLog(mapping, start, sizeBytes);
  }

  /** The log that another thread mapped; disposing of it unmaps nothing. */
  static alias({ address, sizeBytes }: SharedDirtyLog): DirtyLog {
    return new DirtyLog(Mapping.alias(address, sizeBytes, "dirty log"), 0, sizeBytes);
  }

  /** What `alias` takes in another thread. Void once this log is disposed of. */
  share(): SharedDirtyLog {
    return { address: this.#address, sizeBytes: this.#bits.length };
  }

  /**
   * Marks every page that the range touches.
   * @throws StateError the first time a page lies beyond the log (the pages within it are marked): a migration that
   *   goes on would lose writes. Later calls do not throw again.
   */
  mark(guestAddress: number, sizeBytes: number): void {
    if (sizeBytes <= 0) return;
    const bits = this.#bits;
    const first = Math.floor(guestAddress / PAGE_BYTES);
    const last = Math.floor((guestAddress + sizeBytes - 1) / PAGE_BYTES);
    const end = Math.min(last + 1, bits.length * 8);
    let page = first;
    while (page < end) {
      // Pages can pass 2^31, where the shift operators would wrap.
      const byte = Math.floor(page / 8);
      const from = page - byte * 8;
      const to = Math.min(8, end - byte * 8);
      Atomics.or(bits, byte, ((1 << to) - 1) & ~((1 << from) - 1));
      page = byte * 8 + to;
    }
    if (last >= bits.length * 8 && !this.#overflowed) {
      this.#overflowed = true;
      throw new StateError(
        `guest address ${hex(guestAddress + sizeBytes - 1)} lies beyond the dirty log of ${bits.length} bytes`,
        { details: { guestAddress, sizeBytes, logBytes: bits.length } },
      );
    }
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}
