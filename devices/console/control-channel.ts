import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import type { Logger } from "../../src/logger.ts";
import { Chain, INITIAL_PACKED_BASE, RingError } from "../../src/vring/mod.ts";
import type { ConsoleSize } from "./config.ts";
import {
  CONTROL_MESSAGE_BYTES,
  type ControlMessage,
  controlEvent,
  decodeControlMessage,
  encodeControlMessage,
  encodeResize,
} from "./control-message.ts";

/** What the driver is still to be told of a port, as bits. A later fact replaces an earlier one: the set is bounded. */
const DUE = { ADD: 1, CONSOLE: 2, NAME: 4, SIZE: 8 } as const;
export const ALL_DUE = 15;

/** What the driver has been told of a port, and what it said. */
export interface PortTalk {
  due: number;
  /** The driver has taken the port. */
  isReady: boolean;
  /** What the driver was last told about the host's side. */
  toldOpen: boolean;
}

/** What the control channel knows of a port. */
export interface ControlledPort {
  readonly name: string;
  readonly isConsole: boolean;
  readonly size: ConsoleSize;
  readonly isOpenOnHost: boolean;
  setOpenInGuest(isOpen: boolean): void;
  readonly talk: PortTalk;
}

interface Announcement {
  readonly bit: number;
  readonly event: number;
  readonly tail?: (port: ControlledPort) => Uint8Array;
}

/** In the order in which the driver is told. */
const ANNOUNCEMENTS: readonly Announcement[] = [
  { bit: DUE.ADD, event: controlEvent.DEVICE_ADD },
  { bit: DUE.CONSOLE, event: controlEvent.CONSOLE_PORT },
  { bit: DUE.NAME, event: controlEvent.PORT_NAME, tail: ({ name }) => new TextEncoder().encode(name) },
  { bit: DUE.SIZE, event: controlEvent.RESIZE, tail: ({ size }) => encodeResize(size) },
];

/** Before the driver has said anything. */
export function newTalk(): PortTalk {
  return { due: 0, isReady: false, toldOpen: false };
}

/**
 * The talk with the driver over the two control queues. What is to be said is derived from each port when the driver has
 * a buffer for it, so nothing piles up while it has none.
 */
export class ControlChannel {
  isDriverReady = false;
  readonly #chain = new Chain();
  readonly #incoming = new Uint8Array(new ArrayBuffer(CONTROL_MESSAGE_BYTES));
  #receive: DeviceQueue | undefined;
  #hasComplained = false;

  constructor(
    readonly ports: readonly ControlledPort[],
    readonly logger: Logger,
    /** Whether sizes are of interest (SIZE was negotiated). */
    readonly hasSize: () => boolean,
  ) {}

  startQueue(queue: DeviceQueue, direction: "receive" | "transmit"): QueueRunner {
    if (direction === "transmit") {
      if (!this.isDriverReady && hasBeenUsed(queue)) this.#goOnWithoutState();
      return { onKick: () => queue.serve((chain) => this.#take(chain)) };
    }
    this.#receive = queue;
    return { onKick: () => this.#serveReceive(queue) };
  }

  stopQueue(direction: "receive" | "transmit"): void {
    if (direction === "receive") this.#receive = undefined;
  }

  /** Something of a port has changed: tells the driver, now or when it has a buffer. */
  announce(): void {
    this.#receive?.wake();
  }

  /** The size of a port has changed. */
  announceSize(port: ControlledPort): void {
    if (!port.talk.isReady || !port.isConsole || !this.hasSize()) return;
    port.talk.due |= DUE.SIZE;
    this.announce();
  }

  reset(): void {
    this.isDriverReady = false;
    for (const port of this.ports) Object.assign(port.talk, newTalk());
  }

  #serveReceive(queue: DeviceQueue): void {
    const { ring } = queue;
    do {
      ring.disableNotifications();
      while (this.#hasDue && queue.pop(this.#chain)) this.#give(queue);
      queue.publish();
    } while (this.#hasDue && ring.enableNotifications() && !queue.space.missPending);
  }

  get #hasDue(): boolean {
    return this.#portWithDue !== undefined;
  }

  get #portWithDue(): ControlledPort | undefined {
    if (!this.isDriverReady) return undefined;
    return this.ports.find(
      ({ talk, isOpenOnHost }) =>
        (talk.due & DUE.ADD) !== 0 || (talk.isReady && (talk.due !== 0 || talk.toldOpen !== isOpenOnHost)),
    );
  }

  #give(queue: DeviceQueue): void {
    const id = this.ports.indexOf(this.#portWithDue!);
    const message = this.#nextMessage(id);
    if (this.#chain.writableBytes < message.length) {
      throw new RingError(
        `a control buffer has ${this.#chain.writableBytes} bytes, a message needs ${message.length}`,
      );
    }
    queue.complete(this.#chain, this.#chain.copyToWritable(0, message));
  }

  /** The next thing that the driver is to be told of a port that has some; from now on it counts as told. */
  #nextMessage(id: number): Uint8Array {
    const port = this.ports[id]!;
    const { talk } = port;
    const next = ANNOUNCEMENTS.find(({ bit }) => (talk.due & bit) !== 0);
    if (next !== undefined) {
      talk.due &= ~next.bit;
      return encodeControlMessage({ port: id, event: next.event, value: 1 }, next.tail?.(port));
    }
    talk.toldOpen = port.isOpenOnHost;
    return encodeControlMessage({ port: id, event: controlEvent.PORT_OPEN, value: Number(talk.toldOpen) });
  }

  #take(chain: Chain): number {
    if (chain.readableBytes < CONTROL_MESSAGE_BYTES) this.#complain("a control message is too short");
    else {
      chain.copyFromReadable(0, this.#incoming);
      this.#hear(decodeControlMessage(this.#incoming));
    }
    return 0;
  }

  #hear({ port: id, event, value }: ControlMessage): void {
    const port = this.ports[id];
    if (event === controlEvent.DEVICE_READY) this.#onDeviceReady(value !== 0);
    else if (port === undefined) this.#complain(`the driver speaks of port ${id}`);
    else if (event === controlEvent.PORT_READY) this.#onPortReady(port, value !== 0);
    else if (event === controlEvent.PORT_OPEN) port.setOpenInGuest(value !== 0);
    else this.#complain(`the driver sent control event ${event}`);
  }

  /**
   * The driver has spoken already, to a process that is gone and left no state: it will not begin anew. Its ports count as
   * taken and opened, and it is told about the host's side again.
   */
  #goOnWithoutState(): void {
    this.isDriverReady = true;
    for (const port of this.ports) {
      Object.assign(port.talk, { due: 0, isReady: true, toldOpen: !port.isOpenOnHost });
      port.setOpenInGuest(true);
    }
    this.announce();
  }

  #onDeviceReady(isReady: boolean): void {
    this.reset();
    if (!isReady) this.#complain("the driver failed to set the console up");
    this.isDriverReady = isReady;
    for (const { talk } of this.ports) talk.due = isReady ? DUE.ADD : 0;
    this.announce();
  }

  #onPortReady(port: ControlledPort, isReady: boolean): void {
    if (!isReady) this.#complain(`the driver failed to set port "${port.name}" up`);
    const due =
      (port.isConsole ? DUE.CONSOLE : 0) |
      (port.name === "" ? 0 : DUE.NAME) |
      (port.isConsole && this.hasSize() ? DUE.SIZE : 0);
    Object.assign(port.talk, { isReady, due: isReady ? due : 0, toldOpen: false });
    this.announce();
  }

  /** Once: a guest must not fill the host's log. */
  #complain(message: string): void {
    if (!this.#hasComplained) this.logger.warn(message);
    this.#hasComplained = true;
  }
}

/** The ring does not start at its beginning. */
function hasBeenUsed({ ring }: DeviceQueue): boolean {
  return ring.base !== 0 && ring.base !== INITIAL_PACKED_BASE;
}
