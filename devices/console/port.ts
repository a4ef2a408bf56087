import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import {
  MAX_CONSOLE_CHAIN_BYTES,
  MAX_CONSOLE_QUEUE_BYTES,
  MAX_CONSOLE_SAVED_INPUT_BYTES,
  MAX_CONSOLE_TAKEN_BACK_BYTES,
} from "../../src/limits.ts";
import type { Logger } from "../../src/logger.ts";
import { NativeBuffer } from "../../src/sys/mod.ts";
import { Chain, RingError } from "../../src/vring/mod.ts";
import { ByteQueue } from "./byte-queue.ts";
import type { ConsoleSize } from "./config.ts";
import type { ConsoleEnd } from "./console-end.ts";
import { type ControlledPort, newTalk } from "./control-channel.ts";

/** A port as its host configures it. */
export interface ConsolePortOptions {
  readonly end: ConsoleEnd;
  /** What a guest with MULTIPORT knows it by. Default: none. */
  readonly name?: string | undefined;
  /** A console (hvc in Linux) rather than a plain character device. Default: port 0 only. */
  readonly isConsole?: boolean | undefined;
  /** Default: 80 columns of 25 rows. */
  readonly size?: ConsoleSize | undefined;
}

/** What a port needs from the device around it. */
export interface PortSurroundings {
  readonly logger: Logger;
  /** MULTIPORT was negotiated: the driver says when it opens a port. */
  readonly isMultiport: boolean;
  /** The host's side was opened or closed. */
  onOpenChange(): void;
}

const READ_BYTES = 16 * 1024;
const DEFAULT_SIZE: ConsoleSize = { columns: 80, rows: 25 };

/**
 * One port: its two queues, its end, and what is under way between them. Bytes are in one place at a time: in the guest's
 * ring, in one of the two bounded queues here, or with the host's end.
 */
export class ConsolePort implements ControlledPort, Disposable {
  readonly name: string;
  readonly isConsole: boolean;
  readonly end: ConsoleEnd;
  readonly talk = newTalk();
  readonly toGuest = new ByteQueue();
  readonly toHost = new ByteQueue();
  size: ConsoleSize;
  /** What the driver says with MULTIPORT. While nobody in the guest has the port open, input waits. */
  isOpenInGuest = false;
  readonly #chain = new Chain();
  readonly #piece = new NativeBuffer(READ_BYTES);
  #receive: DeviceQueue | undefined;
  #transmit: DeviceQueue | undefined;

  /** Takes the end. */
  constructor(
    id: number,
    options: ConsolePortOptions,
    readonly around: PortSurroundings,
  ) {
    this.end = options.end;
    this.name = options.name ?? "";
    this.isConsole = options.isConsole ?? id === 0;
    this.size = options.size ?? DEFAULT_SIZE;
    this.end.open({
      onInput: () => this.#onInput(),
      onOutput: () => this.#onOutput(),
      onOpenChange: () => around.onOpenChange(),
    });
  }

  get isOpenOnHost(): boolean {
    return this.end.isOpen;
  }

  startQueue(queue: DeviceQueue, direction: "receive" | "transmit"): QueueRunner {
    if (direction === "receive") {
      this.#receive = queue;
      this.#listen();
      return { onKick: () => this.#serveReceive(queue) };
    }
    this.#transmit = queue;
    this.#flush();
    return { onKick: () => this.#serveTransmit(queue) };
  }

  stopQueue(direction: "receive" | "transmit"): void {
    if (direction === "receive") this.#receive = undefined;
    else this.#transmit = undefined;
    this.#listen();
  }

  /** The guest's side was opened or closed. Input that is here already waits for the next opening. */
  setOpenInGuest(isOpen: boolean): void {
    this.isOpenInGuest = isOpen;
    this.#listen();
    this.#receive?.wake();
  }

  /** Input that no driver has asked for yet is dropped; what a guest has written still goes out. */
  reset(): void {
    this.isOpenInGuest = false;
    this.toGuest.clear();
    this.#listen();
  }

  /** One byte of output that came without a queue; false when it was dropped. */
  writeEmergency(byte: Uint8Array): boolean {
    // Nothing holds a driver back here, so beyond the bound its characters are dropped; the state stays loadable.
    if (this.toHost.length >= MAX_CONSOLE_QUEUE_BYTES) return false;
    this.toHost.push(byte);
    if (this.#isRunning) this.#flush();
    return true;
  }

  /** Brings here what the kernel holds of both directions and would drop with this process. For a snapshot. */
  collect(): void {
    const { end, toGuest, toHost } = this;
    for (let room = MAX_CONSOLE_SAVED_INPUT_BYTES - toGuest.length; room >= READ_BYTES; ) {
      const count = end.read(this.#piece);
      if (count === 0) break;
      toGuest.push(this.#piece.bytes.subarray(0, count));
      room -= count;
    }
    const rest = toHost.peek().slice();
    toHost.clear();
    for (let room = MAX_CONSOLE_TAKEN_BACK_BYTES; room >= READ_BYTES; ) {
      const count = end.takeBack?.(this.#piece) ?? 0;
      if (count === 0) break;
      toHost.push(this.#piece.bytes.subarray(0, count));
      room -= count;
    }
    toHost.push(rest);
  }

  [Symbol.dispose](): void {
    this.end[Symbol.dispose]();
  }

  get #isRunning(): boolean {
    return this.#receive !== undefined || this.#transmit !== undefined;
  }

  /** Input is only read while the guest can get it; the rest waits where it is, with the host. */
  get #takesInput(): boolean {
    return (
      this.#receive !== undefined &&
      this.#isWanted &&
      this.toGuest.length + READ_BYTES <= MAX_CONSOLE_QUEUE_BYTES
    );
  }

  /** Somebody in the guest wants input; without MULTIPORT that is not told. */
  get #isWanted(): boolean {
    return this.isOpenInGuest || !this.around.isMultiport;
  }

  get #hasInput(): boolean {
    return this.#isWanted && this.toGuest.length > 0;
  }

  #listen(): void {
    this.end.listenFor({
      input: this.#takesInput,
      output: this.#isRunning && this.toHost.length > 0,
    });
  }

  #onInput(): void {
    while (this.#takesInput) {
      const count = this.end.read(this.#piece);
      if (count === 0) break;
      this.toGuest.push(this.#piece.bytes.subarray(0, count));
    }
    this.#receive?.wake();
    this.#listen();
  }

  #onOutput(): void {
    if (!this.#isRunning) return;
    this.#flush();
    // The transmit ring may have been left full because the queue was.
    this.#transmit?.wake();
  }

  #flush(): void {
    const queue = this.toHost;
    while (queue.length > 0) {
      const taken = this.end.write(queue.buffer, queue.start, queue.length);
      if (taken === 0) break;
      queue.drop(taken);
    }
    this.#listen();
  }

  #serveReceive(queue: DeviceQueue): void {
    const { ring } = queue;
    do {
      ring.disableNotifications();
      while (this.#hasInput && queue.pop(this.#chain)) this.#give(queue);
      queue.publish();
      // Buffers that the driver adds are of no interest while there is nothing to put into them.
      // Nor is there anything to be done before a translation that is missing has come.
    } while (this.#hasInput && ring.enableNotifications() && !queue.space.missPending);
    this.#listen();
  }

  #give(queue: DeviceQueue): void {
    const chain = this.#chain;
    if (chain.writableBytes === 0) this.around.logger.warn("a receive buffer has no writable bytes");
    const count = chain.copyToWritable(0, this.toGuest.peek(chain.writableBytes));
    this.toGuest.drop(count);
    queue.complete(chain, count);
  }

  #serveTransmit(queue: DeviceQueue): void {
    const { ring } = queue;
    do {
      ring.disableNotifications();
      while (this.toHost.length < MAX_CONSOLE_QUEUE_BYTES && queue.pop(this.#chain)) this.#take(queue);
      queue.publish();
      this.#flush();
      // The driver waits until the host's end has taken something: `onOutput` comes back here.
      if (this.toHost.length >= MAX_CONSOLE_QUEUE_BYTES) return;
    } while (ring.enableNotifications() && !queue.space.missPending);
  }

  #take(queue: DeviceQueue): void {
    const chain = this.#chain;
    const { readableBytes } = chain;
    if (readableBytes > MAX_CONSOLE_CHAIN_BYTES) {
      throw new RingError(
        `a console write has ${readableBytes} bytes, the limit is ${MAX_CONSOLE_CHAIN_BYTES}`,
      );
    }
    chain.copyFromReadable(0, this.toHost.reserve(readableBytes));
    this.toHost.commit(readableBytes);
    queue.complete(chain, 0);
  }
}
