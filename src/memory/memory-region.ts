import assert from "node:assert/strict";
import { StateError } from "../errors.ts";
import { MAX_WINDOW_BYTES } from "../limits.ts";
import { type Fd, Mapping, sizeOf } from "../sys/mod.ts";
import { requireSealed } from "./require-sealed.ts";

/** The dirty log's page and the unit of mmap on x86_64; regions are laid out in it. */
export const PAGE_BYTES = 4096;

/** A region as SET_MEM_TABLE and ADD_MEM_REG describe it. Bytes and byte addresses. */
export interface RegionLayout {
  readonly guestAddress: number;
  readonly sizeBytes: number;
  /** Where the front-end has it mapped: ring addresses and IOTLB entries are given in these. */
  readonly userAddress: number;
  /** Where the region starts in its file. */
  readonly mmapOffset: number;
}

/** A mapped region, for another thread of this process. Survives a structured clone. */
export interface SharedRegion {
  readonly layout: RegionLayout;
  readonly address: number;
}

// Below this, a loop over the words beats the allocation of a subarray for `set` (measured: about 40 ns).
const SMALL_COPY_BYTES = 64;

/**
 * One mapped region of guest memory. Owns fd and mapping.
 *
 * Views are made on first use and hold at most 1 GiB each: larger indices are slow, and the garbage collector slows
 * down with the bytes that live views cover (both measured).
 */
export class MemoryRegion implements Disposable {
  readonly guestEnd: number;
  readonly userEnd: number;
  /** What to add to a guest-physical address to get the address in this process. */
  readonly nativeOffset: number;
  readonly #views: (Uint8Array | undefined)[] = [];
  readonly #fd: Fd | undefined;

  private constructor(
    readonly layout: RegionLayout,
    fd: Fd | undefined,
    readonly mapping: Mapping,
  ) {
    this.#fd = fd;
    this.guestEnd = layout.guestAddress + layout.sizeBytes;
    this.userEnd = layout.userAddress + layout.sizeBytes;
    this.nativeOffset = mapping.address - layout.guestAddress;
  }

  /**
   * Checks the layout against the file and maps it. Takes the fd, which is closed on an error.
   * @throws StateError when the layout is impossible, or the file too short or (with `demandSeals`) shrinkable
   */
  static map(layout: RegionLayout, fd: Fd, demandSeals = false): MemoryRegion {
    try {
      checkLayout(layout);
      // Before the size is asked for: until the file is sealed its peer may still shorten it.
      if (demandSeals) requireSealed(fd, "a memory region's file");
      const fileBytes = sizeOf(fd);
      const neededBytes = layout.mmapOffset + layout.sizeBytes;
      // Touching a mapped page past the end of the file is SIGBUS, and the end of the process.
      if (fileBytes < neededBytes) {
        throw refuse(layout, `its file has ${fileBytes} bytes, offset and size need ${neededBytes}`);
      }
      const mapping = Mapping.ofFd(fd, { sizeBytes: layout.sizeBytes, offset: layout.mmapOffset });
      return new MemoryRegion(layout, fd, mapping);
    } catch (error) {
      fd[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * A region that another thread mapped: the same addresses in this process, so that what is registered for them
   * (userfaultfd) and the page tables hold for every thread.
   */
  static alias({ layout, address }: SharedRegion): MemoryRegion {
    const mapping = Mapping.alias(address, layout.sizeBytes, `region at ${hex(layout.guestAddress)}`);
    return new MemoryRegion(layout, undefined, mapping);
  }

  /** Its file. Only where it was mapped. */
  get fd(): Fd {
    assert(this.#fd !== undefined, "another thread has this region's file");
    return this.#fd;
  }

  /** What `alias` takes in another thread. Void once this region is disposed of. */
  share(): SharedRegion {
    return { layout: this.layout, address: this.mapping.address };
  }

  /** Copies `sizeBytes` bytes from `offset` of the region to `target[at…]`. */
  read(offset: number, target: Uint8Array, at: number, sizeBytes: number): void {
    for (let done = 0; done < sizeBytes; ) {
      const view = this.#viewAt(offset + done);
      const start = (offset + done) % MAX_WINDOW_BYTES;
      const count = Math.min(sizeBytes - done, view.length - start);
      if (count > SMALL_COPY_BYTES) target.set(view.subarray(start, start + count), at + done);
      else for (let i = 0; i < count; i++) target[at + done + i] = view[start + i]!;
      done += count;
    }
  }

  /** Copies `source[at…]` to `offset` of the region. */
  write(offset: number, source: Uint8Array, at: number, sizeBytes: number): void {
    for (let done = 0; done < sizeBytes; ) {
      const view = this.#viewAt(offset + done);
      const start = (offset + done) % MAX_WINDOW_BYTES;
      const count = Math.min(sizeBytes - done, view.length - start);
      if (count > SMALL_COPY_BYTES) view.set(source.subarray(at + done, at + done + count), start);
      else for (let i = 0; i < count; i++) view[start + i] = source[at + done + i]!;
      done += count;
    }
  }

  #viewAt(offset: number): Uint8Array {
    const index = Math.floor(offset / MAX_WINDOW_BYTES);
    return this.#views[index] ?? this.#openView(index);
  }

  #openView(index: number): Uint8Array {
    const start = index * MAX_WINDOW_BYTES;
    const sizeBytes = Math.min(MAX_WINDOW_BYTES, this.layout.sizeBytes - start);
    const view = new Uint8Array(this.mapping.window(start, sizeBytes));
    this.#views[index] = view;
    return view;
  }

  [Symbol.dispose](): void {
    this.mapping[Symbol.dispose]();
    this.#fd?.[Symbol.dispose]();
  }
}

function checkLayout(layout: RegionLayout): void {
  const { guestAddress, sizeBytes, userAddress, mmapOffset } = layout;
  for (const [name, value] of Object.entries({ guestAddress, sizeBytes, userAddress, mmapOffset })) {
    if (!Number.isSafeInteger(value) || value < 0) throw refuse(layout, `${name} is not below 2^53`);
    // The size alone may be any: libblkio shares its rings in a region of 16,880 bytes, and mmap rounds up.
    if (name !== "sizeBytes" && value % PAGE_BYTES !== 0) {
      throw refuse(layout, `${name} is not a multiple of ${PAGE_BYTES}`);
    }
  }
  if (sizeBytes === 0) throw refuse(layout, "it is empty");
  for (const start of [guestAddress, userAddress, mmapOffset]) {
    if (!Number.isSafeInteger(start + sizeBytes)) throw refuse(layout, "it ends above 2^53");
  }
}

function refuse(layout: RegionLayout, why: string): StateError {
  const { guestAddress, sizeBytes, userAddress, mmapOffset } = layout;
  return new StateError(`memory region at guest address ${hex(guestAddress)} refused: ${why}`, {
    details: { guestAddress, sizeBytes, userAddress, mmapOffset },
  });
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
