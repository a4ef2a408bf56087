import { CompatibilityError, StateError } from "../errors.ts";
import type { Fd } from "../sys/mod.ts";
import type { FrontendClient } from "./frontend-client.ts";

/** What a piece of a shared memory region is backed by. */
export type MappingSource =
  /** An fd of the device's, e.g. an open file. */
  | { readonly kind: "descriptor"; readonly fd: Fd; readonly offset: number; readonly sizeBytes: number }
  /** A shared memory object as a whole. */
  | { readonly kind: "sharedMemory"; readonly fd: Fd; readonly sizeBytes: number }
  /** GPU memory that the front-end imports through Vulkan (GPU_MAP). UUIDs have 16 bytes. */
  | {
      readonly kind: "vulkan";
      readonly fd: Fd;
      readonly handleType: number;
      readonly memoryIndex: number;
      readonly deviceUuid: Uint8Array;
      readonly driverUuid: Uint8Array;
      readonly sizeBytes: number;
    }
  /** An address that means the same to both sides, which share a process (EXTERNAL_MAP). */
  | { readonly kind: "external"; readonly pointer: bigint; readonly sizeBytes: number };

const READ_WRITE = 1;

/**
 * A device's hold on one shared memory region: puts things into it and takes them out again.
 *
 * It remembers offset and size of each mapping, because UNMAP must name a whole one; overlaps are refused here,
 * before the front-end would refuse them.
 */
export class SharedMemoryMapper {
  readonly #sizes = new Map<number, number>();

  constructor(
    readonly client: FrontendClient,
    readonly regionId: number,
    readonly regionBytes: number,
  ) {}

  /** @throws StateError over an existing mapping, CompatibilityError outside the region */
  addMapping(source: MappingSource, offset: number, writable: boolean): void {
    const { sizeBytes } = source;
    this.#check(offset, sizeBytes);
    const base = { shmid: this.regionId, shmOffset: offset, sizeBytes };
    switch (source.kind) {
      case "descriptor":
      case "sharedMemory": {
        const fdOffset = source.kind === "descriptor" ? source.offset : 0;
        this.client.shmemMap({ ...base, fdOffset, flags: writable ? READ_WRITE : 0 }, source.fd);
        break;
      }
      case "vulkan": {
        const { memoryIndex, handleType, deviceUuid, driverUuid } = source;
        this.client.gpuMap({ ...base, memoryIndex, handleType, deviceUuid, driverUuid }, source.fd);
        break;
      }
      case "external":
        this.client.externalMap({ ...base, pointer: source.pointer });
        break;
    }
    this.#sizes.set(offset, sizeBytes);
  }

  /** @throws StateError when no mapping begins at `offset` */
  removeMapping(offset: number): void {
    const sizeBytes = this.#sizes.get(offset);
    if (sizeBytes === undefined) {
      throw new StateError(`no mapping begins at offset ${offset} of shared memory region ${this.regionId}`);
    }
    this.client.shmemUnmap({ shmid: this.regionId, fdOffset: 0, shmOffset: offset, sizeBytes, flags: 0 });
    this.#sizes.delete(offset);
  }

  /** Offset and size of what is mapped. */
  get mappings(): ReadonlyMap<number, number> {
    return this.#sizes;
  }

  /** The front-end drops all mappings at a reset: so do we. */
  forgetAll(): void {
    this.#sizes.clear();
  }

  #check(offset: number, sizeBytes: number): void {
    if (sizeBytes <= 0 || offset < 0 || offset + sizeBytes > this.regionBytes) {
      throw new CompatibilityError(
        `a mapping of ${sizeBytes} bytes at ${offset} is outside shared memory region ${this.regionId} (${this.regionBytes} bytes)`,
      );
    }
    for (const [start, size] of this.#sizes) {
      if (offset < start + size && start < offset + sizeBytes) {
        throw new StateError(`shared memory region ${this.regionId} has a mapping at ${start} already`);
      }
    }
  }
}
