import type { DeviceQueue, RingRunner } from "../../../src/backend/mod.ts";
import { Fd, IoUring, IoVector, readAt, writeAt } from "../../../src/sys/mod.ts";
import { Chain } from "../../../src/vring/mod.ts";

export interface BlkRunnerParameters {
  /** The image's fd; undefined: requests are completed at once, and nothing is read or written. */
  readonly imageFd: number | undefined;
  /** preadv and pwritev, one request after the other, instead of io_uring. */
  readonly isInline: boolean;
}

const SECTOR_BYTES = 512;
const HEADER_BYTES = 16;
const TYPE_IN = 0;
const MAX_IN_FLIGHT = 256;
/** Chains that are taken before their completions are shown: the driver works on one batch while we work on the next. */
const MAX_BATCH = 64;

/** The least that a block device can do: a floor for what ring Workers cost, and for what io_uring by FFI costs. */
export function createRunner(queue: DeviceQueue, parameters: unknown): RingRunner {
  const { imageFd, isInline } = parameters as BlkRunnerParameters;
  if (imageFd === undefined) return new InlineRunner(queue, undefined);
  return isInline ? new InlineRunner(queue, imageFd) : new UringRunner(queue, imageFd);
}

class InlineRunner implements RingRunner {
  readonly #chain = new Chain();
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #words = new Uint32Array(this.#header.buffer);
  readonly #status = new Uint8Array(1);
  readonly #vector = new IoVector(1);
  readonly #image: Fd | undefined;

  constructor(
    readonly queue: DeviceQueue,
    imageFd: number | undefined,
  ) {
    this.#image = imageFd === undefined ? undefined : borrow(imageFd);
  }

  poll(): boolean {
    const { queue } = this;
    const chain = this.#chain;
    let count = 0;
    while (count < MAX_BATCH && queue.pop(chain)) {
      chain.copyFromReadable(0, this.#header);
      this.#status[0] = this.#image === undefined || this.#transfer(this.#image, chain) > 0 ? 0 : 1;
      chain.copyToWritable(chain.writableBytes - 1, this.#status);
      queue.complete(chain, chain.writableBytes);
      count++;
    }
    if (count === 0) return false;
    queue.publish();
    return true;
  }

  [Symbol.dispose](): void {
    this.#image?.take();
  }

  #transfer(image: Fd, chain: Chain): number {
    const isRead = this.#words[0] === TYPE_IN;
    const piece = isRead ? chain.readableCount : 1;
    this.#vector.clear();
    this.#vector.push(chain.addresses[piece]!, chain.lengths[piece]!);
    return (isRead ? readAt : writeAt)(image, this.#vector, offsetOf(this.#words));
  }
}

/** Of another thread: given up with `take`, never closed. */
function borrow(number: number): Fd {
  return new Fd(number, "image");
}

function offsetOf(words: Uint32Array): number {
  return (words[2]! + words[3]! * 2 ** 32) * SECTOR_BYTES;
}

class UringRunner implements RingRunner {
  readonly #image: Fd;
  readonly #ring = IoUring.create({ entries: MAX_IN_FLIGHT });
  readonly #chains = Array.from({ length: MAX_IN_FLIGHT }, () => new Chain());
  readonly #free = Int32Array.from({ length: MAX_IN_FLIGHT }, (_, i) => i);
  #freeCount = MAX_IN_FLIGHT;
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #words = new Uint32Array(this.#header.buffer);
  readonly #ok = new Uint8Array(1);

  constructor(
    readonly queue: DeviceQueue,
    imageFd: number,
  ) {
    this.#image = borrow(imageFd);
    this.#ring.registerFiles([this.#image]);
  }

  get completions(): Fd {
    return this.#ring.fd;
  }

  get isFull(): boolean {
    return this.#freeCount === 0;
  }

  poll(): boolean {
    const taken = this.#take();
    return this.drainOnce(taken) || taken;
  }

  drain(): boolean {
    this.drainOnce(false);
    return this.#freeCount === MAX_IN_FLIGHT;
  }

  [Symbol.dispose](): void {
    this.#ring[Symbol.dispose]();
    this.#image.take();
  }

  #take(): boolean {
    let count = 0;
    while (count < MAX_BATCH && this.#freeCount > 0) {
      const slot = this.#free[this.#freeCount - 1]!;
      const chain = this.#chains[slot]!;
      if (!this.queue.pop(chain)) break;
      this.#freeCount--;
      this.#prepare(slot, chain);
      count++;
    }
    return count > 0;
  }

  #prepare(slot: number, chain: Chain): void {
    chain.copyFromReadable(0, this.#header);
    const offset = offsetOf(this.#words);
    if (this.#words[0] === TYPE_IN) {
      const piece = chain.readableCount;
      this.#ring.read(slot, 0, chain.addresses[piece]!, chain.lengths[piece]!, offset);
    } else {
      this.#ring.write(slot, 0, chain.addresses[1]!, chain.lengths[1]!, offset);
    }
  }

  drainOnce(taken: boolean): boolean {
    const ring = this.#ring;
    if (taken || ring.hasDeferred) ring.submit();
    let count = 0;
    while (ring.reap()) {
      const slot = ring.token;
      const chain = this.#chains[slot]!;
      this.#ok[0] = ring.result > 0 ? 0 : 1;
      chain.copyToWritable(chain.writableBytes - 1, this.#ok);
      this.queue.complete(chain, chain.writableBytes);
      this.#free[this.#freeCount++] = slot;
      count++;
    }
    if (count > 0) this.queue.publish();
    return count > 0;
  }
}
