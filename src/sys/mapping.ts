import { type Pointer, toArrayBuffer } from "bun:ffi";
import assert from "node:assert/strict";
import { MAX_WINDOW_BYTES } from "../limits.ts";
import { MAP, PROT } from "./constants.ts";
import { syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { libc } from "./libc.ts";

export interface MappingOptions {
  readonly sizeBytes: number;
  /** Offset into the file, a multiple of the page size. */
  readonly offset?: number;
  readonly readOnly?: boolean;
}

/**
 * Memory that is mapped into this process, with one owner.
 *
 * The Mapping alone holds its ArrayBuffers and detaches each before munmap: a stale view then reads as length 0
 * instead of crashing the process (both measured). Take views through `window()`, never keep them past `dispose`.
 */
export class Mapping implements Disposable {
  static readonly #live = new Map<Mapping, string>();
  readonly #windows = new Set<ArrayBuffer>();
  #address: number;
  readonly #isOwned: boolean;

  private constructor(
    address: number,
    readonly sizeBytes: number,
    readonly label: string,
    isOwned = true,
  ) {
    this.#address = address;
    this.#isOwned = isOwned;
    Mapping.#live.set(this, label);
  }

  /** Maps a file or memfd, shared with whoever else maps it. */
  static ofFd(fd: Fd, options: MappingOptions): Mapping {
    const protection = options.readOnly ? PROT.READ : PROT.READ | PROT.WRITE;
    return Mapping.#map(options.sizeBytes, protection, MAP.SHARED, fd.number, options.offset ?? 0, fd.label);
  }

  /** Private zeroed memory of this process; pages come into being when they are touched. */
  static anonymous(sizeBytes: number, label = "anonymous memory"): Mapping {
    return Mapping.#map(
      sizeBytes,
      PROT.READ | PROT.WRITE,
      MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE,
      -1,
      0,
      label,
    );
  }

  /**
   * A mapping that another thread of this process owns. Disposing of it detaches this thread's windows and unmaps nothing;
   * that must have happened in every thread before the owner unmaps.
   */
  static alias(address: number, sizeBytes: number, label: string): Mapping {
    return new Mapping(address, sizeBytes, label, false);
  }

  static #map(
    size: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
    label: string,
  ): Mapping {
    const result = libc.mmap(0, size, protection, flags, fd, offset);
    // MAP_FAILED is 2^64-1, which does not fit a number and so comes back as a BigInt.
    if (typeof result === "bigint") throw syscallError("mmap", label, { sizeBytes: size, offset });
    return new Mapping(result, size, label);
  }

  /** Address of the first byte in this process. */
  get address(): number {
    assert(this.#address !== 0, `the mapping "${this.label}" was unmapped`);
    return this.#address;
  }

  /** A view of `sizeBytes` bytes from `offset`; at most 1 GiB, since indices from 2^31 on are slow. */
  window(offset: number, sizeBytes: number): ArrayBuffer {
    assert(
      offset >= 0 && sizeBytes > 0 && offset + sizeBytes <= this.sizeBytes,
      "window outside the mapping",
    );
    assert(sizeBytes <= MAX_WINDOW_BYTES, "a window holds at most 1 GiB");
    const buffer = toArrayBuffer(this.address as Pointer, offset, sizeBytes);
    this.#windows.add(buffer);
    return buffer;
  }

  /** Detaches one window before the mapping itself goes. */
  closeWindow(buffer: ArrayBuffer): void {
    if (this.#windows.delete(buffer)) buffer.transfer(0);
  }

  [Symbol.dispose](): void {
    if (this.#address === 0) return;
    for (const buffer of this.#windows) buffer.transfer(0);
    this.#windows.clear();
    if (this.#isOwned) libc.munmap(this.#address, this.sizeBytes);
    this.#address = 0;
    Mapping.#live.delete(this);
  }

  /** Labels of what is mapped in this thread, for tests that look for leaks. */
  static liveLabels(): string[] {
    return [...Mapping.#live.values()];
  }
}
