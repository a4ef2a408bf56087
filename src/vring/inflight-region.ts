import { StateError } from "../errors.ts";
import { MAX_QUEUE_SIZE, MAX_QUEUES } from "../limits.ts";
import { requireSealed } from "../memory/mod.ts";
import { createMemfd, type Fd, Mapping, sizeOf } from "../sys/mod.ts";
import { PackedInflight } from "./packed-inflight.ts";
import { INFLIGHT_QUEUE_ALIGNMENT } from "./ring-offsets.ts";
import { SplitInflight } from "./split-inflight.ts";

export interface InflightShape {
  readonly numQueues: number;
  readonly queueSize: number;
  readonly packed: boolean;
}

/** Where the region lies in its file: the fields of GET_INFLIGHT_FD and SET_INFLIGHT_FD. */
export interface InflightPlace {
  readonly sizeBytes: number;
  readonly mmapOffset: number;
}

/** One queue's part of a mapped region, for another thread of this process. Survives a structured clone. */
export interface SharedInflight {
  readonly address: number;
  readonly sizeBytes: number;
  readonly queueSize: number;
  readonly packed: boolean;
}

/** The memory of GET_INFLIGHT_FD and SET_INFLIGHT_FD: what each queue of a device has in flight. */
export class InflightRegion implements Disposable {
  readonly #mapping: Mapping;
  readonly #shape: InflightShape;

  private constructor(mapping: Mapping, shape: InflightShape) {
    this.#mapping = mapping;
    this.#shape = shape;
  }

  /** A new, uninitialised region, as GET_INFLIGHT_FD answers it. The caller owns the fd. */
  static create(shape: InflightShape): InflightPlace & { readonly fd: Fd } {
    checkShape(shape);
    const sizeBytes = strideBytes(shape) * shape.numQueues;
    return { fd: createMemfd("inflight", sizeBytes), sizeBytes, mmapOffset: 0 };
  }

  /**
   * Maps the region that SET_INFLIGHT_FD brought. Takes the fd and closes it.
   * @throws StateError when it is too small for its queues, or its file is too short or (with `demandSeals`) shrinkable
   */
  static open(fd: Fd, description: InflightPlace & InflightShape, demandSeals = false): InflightRegion {
    using owned = fd;
    checkShape(description);
    if (demandSeals) requireSealed(owned, "the inflight region's file");
    const { sizeBytes, mmapOffset } = description;
    const neededBytes = strideBytes(description) * description.numQueues;
    const fileBytes = sizeOf(owned);
    if (!Number.isSafeInteger(mmapOffset) || mmapOffset < 0 || sizeBytes < neededBytes) {
      throw new StateError(
        `an inflight region of ${sizeBytes} bytes at ${mmapOffset}; ${neededBytes} are needed`,
        {
          details: { sizeBytes, mmapOffset, neededBytes },
        },
      );
    }
    if (fileBytes < mmapOffset + neededBytes) {
      throw new StateError(
        `the inflight region's file has ${fileBytes} bytes, ${mmapOffset + neededBytes} are needed`,
        { details: { fileBytes, mmapOffset, neededBytes } },
      );
    }
    return new InflightRegion(
      Mapping.ofFd(owned, { sizeBytes: neededBytes, offset: mmapOffset }),
      description,
    );
  }

  /** The part of one queue, for `createDeviceRing`. It is void once the region is disposed of. */
  queue(index: number): SplitInflight | PackedInflight {
    const { queueSize, packed } = this.#shape;
    const stride = strideBytes(this.#shape);
    return openQueue(this.#mapping.window(this.#offsetOf(index), stride), queueSize, packed);
  }

  /** What `AliasedInflight` takes in another thread. Void once the region is disposed of. */
  shareQueue(index: number): SharedInflight {
    const { queueSize, packed } = this.#shape;
    const address = this.#mapping.address + this.#offsetOf(index);
    return { address, sizeBytes: strideBytes(this.#shape), queueSize, packed };
  }

  #offsetOf(index: number): number {
    const { numQueues } = this.#shape;
    if (index >= 0 && index < numQueues) return index * strideBytes(this.#shape);
    throw new StateError(`queue ${index} is not among the ${numQueues} of the inflight region`);
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}

/** One queue's part of a region that another thread mapped; disposing of it unmaps nothing. */
export class AliasedInflight implements Disposable {
  readonly queue: SplitInflight | PackedInflight;
  readonly #mapping: Mapping;

  constructor({ address, sizeBytes, queueSize, packed }: SharedInflight) {
    this.#mapping = Mapping.alias(address, sizeBytes, "inflight");
    this.queue = openQueue(this.#mapping.window(0, sizeBytes), queueSize, packed);
  }

  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}

function openQueue(window: ArrayBuffer, queueSize: number, packed: boolean): SplitInflight | PackedInflight {
  return packed ? new PackedInflight(window, queueSize) : new SplitInflight(window, queueSize);
}

function strideBytes({ queueSize, packed }: InflightShape): number {
  const sizeBytes = packed ? PackedInflight.sizeBytes(queueSize) : SplitInflight.sizeBytes(queueSize);
  return Math.ceil(sizeBytes / INFLIGHT_QUEUE_ALIGNMENT) * INFLIGHT_QUEUE_ALIGNMENT;
}

function checkShape({ numQueues, queueSize }: InflightShape): void {
  const queuesFit = Number.isInteger(numQueues) && numQueues >= 1 && numQueues <= MAX_QUEUES;
  const sizeFits = Number.isInteger(queueSize) && queueSize >= 1 && queueSize <= MAX_QUEUE_SIZE;
  if (queuesFit && sizeFits) return;
  throw new StateError(
    `an inflight region for ${numQueues} queues of ${queueSize} descriptors is not possible`,
    {
      details: { numQueues, queueSize },
    },
  );
}
