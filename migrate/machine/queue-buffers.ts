import type { MachineMemory } from "./machine-memory.ts";
import type { MachineQueue } from "./machine-queue.ts";

/**
 * The buffers of a queue in guest memory, all of one size. Which of them the device has is known from the ring, so a restored
 * queue's buffers need no state of their own.
 */
export class QueueBuffers {
  readonly #address: number;
  readonly #free: number[] = [];

  constructor(
    readonly queue: MachineQueue,
    readonly memory: MachineMemory,
    readonly count: number,
    readonly sizeBytes: number,
  ) {
    this.#address = memory.allocate(count * sizeBytes);
    const busy = new Set(queue.ring.exportState().outstanding.map(({ token }) => token));
    for (let buffer = count - 1; buffer >= 0; buffer--) if (!busy.has(buffer)) this.#free.push(buffer);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  /** Gives bytes to the device, without a kick; false when all buffers are with it. */
  send(bytes: Uint8Array): boolean {
    return this.#add(bytes, false);
  }

  /** Gives the device a buffer to fill, zeroed before. */
  offer(): boolean {
    return this.#add(new Uint8Array(this.sizeBytes), true);
  }

  /** Takes back what the device has done with. `onBack` gets what it wrote. */
  drain(onBack: (bytes: Uint8Array) => void = () => {}): void {
    this.queue.drain((buffer, writtenBytes) => {
      const bytes = new Uint8Array(Math.min(writtenBytes, this.sizeBytes));
      this.memory.guest.read(this.#addressOf(buffer), bytes);
      this.#free.push(buffer);
      onBack(bytes);
    });
  }

  #add(bytes: Uint8Array, writable: boolean): boolean {
    const buffer = this.#free.pop();
    if (buffer === undefined) return false;
    const guestAddress = this.#addressOf(buffer);
    this.memory.guest.write(guestAddress, bytes);
    const added = this.queue.add([{ guestAddress, sizeBytes: bytes.length, writable }], buffer);
    if (!added) this.#free.push(buffer);
    return added;
  }

  #addressOf(buffer: number): number {
    return this.#address + buffer * this.sizeBytes;
  }
}
