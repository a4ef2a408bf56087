import { controlEvent, decodeControlMessage, encodeControlMessage } from "../../../devices/console/mod.ts";
import type { Driver } from "./driver.ts";

/** Buffers of each queue; its token is the number of the slot. */
const SLOTS = 8;
const SLOT_BYTES = 2048;
const CONTROL = { receive: 2, transmit: 3 } as const;

const receiveQueue = (port: number) => (port === 0 ? 0 : 2 * port + 2);

/** What the device has told of a port, in its order. */
export interface ControlTold {
  readonly port: number;
  readonly event: number;
  readonly value: number;
  readonly tail: Uint8Array;
}

/**
 * A guest's driver of a console with MULTIPORT: takes the ports that the device adds, opens them, and moves bytes. Nothing here
 * waits. A restored driver needs the restored `driver`, and memory that gives the same addresses.
 */
export class ConsoleDriver {
  readonly told: ControlTold[] = [];
  readonly #free: Set<number>[] = [];
  readonly #address: number[] = [];

  constructor(
    readonly driver: Driver,
    readonly portCount: number,
  ) {
    for (const { ring } of driver.queues) {
      this.#address.push(driver.memory.allocate(SLOTS * SLOT_BYTES));
      const busy = new Set(ring.exportState().outstanding.map(({ token }) => token));
      this.#free.push(
        new Set(Array.from({ length: SLOTS }, (_, slot) => slot).filter((slot) => !busy.has(slot))),
      );
    }
  }

  /** After the driver was started for the first time. */
  begin(): void {
    this.#refill(CONTROL.receive);
    this.send({ port: 0, event: controlEvent.DEVICE_READY, value: 1 });
  }

  send(message: { port: number; event: number; value: number }): void {
    if (this.#write(CONTROL.transmit, encodeControlMessage(message)) === 0)
      throw new Error("no control buffer");
  }

  /** Hears what the device says; ports that it adds are taken and opened. */
  listen(): void {
    this.#recycle(CONTROL.transmit);
    for (const bytes of this.#received(CONTROL.receive)) {
      const message = { ...decodeControlMessage(bytes), tail: bytes.slice(8) };
      this.told.push(message);
      if (message.event !== controlEvent.DEVICE_ADD) continue;
      this.send({ port: message.port, event: controlEvent.PORT_READY, value: 1 });
      this.send({ port: message.port, event: controlEvent.PORT_OPEN, value: 1 });
      this.#refill(receiveQueue(message.port));
    }
    this.#refill(CONTROL.receive);
  }

  /** What has come for a port. */
  read(port: number): Uint8Array {
    const queue = receiveQueue(port);
    const bytes = Buffer.concat([...this.#received(queue)]);
    this.#refill(queue);
    return bytes;
  }

  /** Offers the beginning of `bytes` for a port; returns how many, 0 while all buffers are with the device. */
  write(port: number, bytes: Uint8Array): number {
    const queue = receiveQueue(port) + 1;
    this.#recycle(queue);
    return this.#write(queue, bytes);
  }

  #write(index: number, bytes: Uint8Array): number {
    const [slot] = this.#free[index]!;
    if (slot === undefined) return 0;
    const sizeBytes = Math.min(bytes.length, SLOT_BYTES);
    const guestAddress = this.#addressOf(index, slot);
    this.driver.memory.write(guestAddress, bytes.subarray(0, sizeBytes));
    this.#offer(index, slot, { guestAddress, sizeBytes, writable: false });
    this.driver.notify(index);
    return sizeBytes;
  }

  #refill(index: number): void {
    for (const slot of [...this.#free[index]!]) {
      const guestAddress = this.#addressOf(index, slot);
      this.#offer(index, slot, { guestAddress, sizeBytes: SLOT_BYTES, writable: true });
    }
    this.driver.notify(index);
  }

  #offer(
    index: number,
    slot: number,
    piece: { guestAddress: number; sizeBytes: number; writable: boolean },
  ): void {
    this.#free[index]!.delete(slot);
    if (!this.driver.queues[index]!.add([piece], slot)) throw new Error(`queue ${index} is full`);
  }

  *#received(index: number): Generator<Uint8Array> {
    for (const { token, writtenBytes } of this.#used(index)) {
      yield this.driver.memory.read(this.#addressOf(index, token), writtenBytes);
    }
  }

  #recycle(index: number): void {
    for (const _ of this.#used(index));
  }

  *#used(index: number): Generator<{ token: number; writtenBytes: number }> {
    const { ring } = this.driver.queues[index]!;
    for (let used = ring.popUsed(); used !== undefined; used = ring.popUsed()) {
      yield used;
      this.#free[index]!.add(used.token);
    }
  }

  #addressOf(index: number, slot: number): number {
    return this.#address[index]! + slot * SLOT_BYTES;
  }
}
