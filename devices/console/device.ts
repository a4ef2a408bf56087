import type {
  DeviceQueue,
  DeviceRestore,
  FrontendClient,
  QueueRunner,
  VhostUserDevice,
} from "../../src/backend/mod.ts";
import { CompatibilityError } from "../../src/errors.ts";
import { MAX_CONSOLE_CHAIN_BYTES, MAX_CONSOLE_QUEUE_BYTES } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { NativeBuffer } from "../../src/sys/mod.ts";
import { Chain, RingError } from "../../src/vring/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";
import { ObjectState } from "../state/mod.ts";
import { ByteQueue } from "./byte-queue.ts";
import {
  type ConsoleSize,
  consoleFeature,
  EMERGENCY_WRITE_OFFSET,
  encodeConsoleConfig,
  RECEIVE_QUEUE,
  TRANSMIT_QUEUE,
} from "./config.ts";
import type { ConsoleEnd } from "./console-end.ts";
import { CONSOLE_STATE_VERSION, type ConsoleState, checkConsoleState } from "./state.ts";

export interface ConsoleOptions {
  /** Default: 80 columns of 25 rows. */
  readonly size?: ConsoleSize | undefined;
  readonly logger?: Logger | undefined;
}

const READ_BYTES = 16 * 1024;
const DEFAULT_SIZE: ConsoleSize = { columns: 80, rows: 25 };

/**
 * A virtio console with one port. Bytes are in one place at a time: in the guest's ring, in one of the two bounded
 * queues here, or with the host's end. While the device is suspended none of them moves, so a snapshot neither loses
 * nor repeats a byte.
 */
export class ConsoleDevice implements VhostUserDevice, Disposable {
  readonly deviceType = "console";
  readonly maxQueues = 2;
  readonly features = consoleFeature.SIZE | consoleFeature.EMERG_WRITE;
  readonly protocolFeatures = protocolFeature.CONFIG | protocolFeature.BACKEND_REQ;
  readonly stateVersion = CONSOLE_STATE_VERSION;
  readonly oldestCompatibleStateVersion = 1;
  readonly #toGuest = new ByteQueue();
  readonly #toHost = new ByteQueue();
  readonly #chain = new Chain();
  readonly #incoming = new NativeBuffer(READ_BYTES);
  readonly #logger: Logger;
  readonly #state: ObjectState<ConsoleState>;
  #receive: DeviceQueue | undefined;
  #transmit: DeviceQueue | undefined;
  #size: ConsoleSize;
  #frontend: FrontendClient | undefined;

  /** Takes the end. */
  constructor(
    readonly end: ConsoleEnd,
    options: ConsoleOptions = {},
  ) {
    this.#size = options.size ?? DEFAULT_SIZE;
    this.#logger = options.logger ?? silentLogger;
    this.#state = new ObjectState({
      deviceType: this.deviceType,
      version: CONSOLE_STATE_VERSION,
      capture: () => ({
        ...this.#size,
        toGuest: this.#toGuest.peek().slice(),
        toHost: this.#toHost.peek().slice(),
      }),
      check: checkConsoleState,
      apply: (state) => this.#apply(state),
    });
    end.open({ onInput: () => this.#onInput(), onOutput: () => this.#onOutput() });
  }

  ackFeatures(_features: bigint): void {}

  readConfig(): Uint8Array {
    return encodeConsoleConfig(this.#size);
  }

  /** The emergency write: one character, output without a queue. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset !== EMERGENCY_WRITE_OFFSET || bytes.length < 1) {
      throw new CompatibilityError(
        "of a console's config space only emerg_wr (bytes 8 to 11) can be written",
      );
    }
    // Nothing holds a driver back here, so beyond the bound its characters are dropped; the state stays loadable.
    if (this.#toHost.length >= MAX_CONSOLE_QUEUE_BYTES) {
      this.#logger.warn("an emergency write was dropped: the host's end takes no output");
      return;
    }
    this.#toHost.push(bytes.subarray(0, 1));
    if (this.#isRunning) this.#flush();
  }

  /** Changes the size that the guest sees and tells it so. */
  resize(size: ConsoleSize): void {
    this.#size = size;
    this.#frontend?.configChange();
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    if (queue.index === RECEIVE_QUEUE) {
      this.#receive = queue;
      this.#listen();
      return { onKick: () => this.#serveReceive(queue) };
    }
    this.#transmit = queue;
    this.#flush();
    return { onKick: () => this.#serveTransmit(queue) };
  }

  stopQueue(index: number): void {
    if (index === RECEIVE_QUEUE) this.#receive = undefined;
    if (index === TRANSMIT_QUEUE) this.#transmit = undefined;
    this.#listen();
  }

  /** Input that no driver has asked for yet is dropped; what a guest has written still goes out. */
  reset(): void {
    this.#toGuest.clear();
    this.#listen();
  }

  snapshot(): Iterable<StateSection> {
    return this.#state.snapshot();
  }

  beginRestore(header: StateHeader): DeviceRestore {
    return this.#state.beginRestore(header);
  }

  setBackendRequestConnection(client: FrontendClient | undefined): void {
    this.#frontend = client;
  }

  [Symbol.dispose](): void {
    this.end[Symbol.dispose]();
  }

  get #isRunning(): boolean {
    return this.#receive !== undefined || this.#transmit !== undefined;
  }

  /** Input is only read while the guest can get it; the rest waits where it is, with the host. */
  get #takesInput(): boolean {
    return this.#receive !== undefined && this.#toGuest.length + READ_BYTES <= MAX_CONSOLE_QUEUE_BYTES;
  }

  #apply(state: ConsoleState): void {
    this.#size = { columns: state.columns, rows: state.rows };
    for (const [queue, bytes] of [
      [this.#toGuest, state.toGuest],
      [this.#toHost, state.toHost],
    ] as const) {
      queue.clear();
      queue.push(bytes);
    }
  }

  #listen(): void {
    this.end.listenFor({
      input: this.#takesInput,
      output: this.#isRunning && this.#toHost.length > 0,
    });
  }

  #onInput(): void {
    while (this.#takesInput) {
      const count = this.end.read(this.#incoming);
      if (count === 0) break;
      this.#toGuest.push(this.#incoming.bytes.subarray(0, count));
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
    const queue = this.#toHost;
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
      while (this.#toGuest.length > 0 && queue.pop(this.#chain)) this.#give(queue);
      queue.publish();
      // Buffers that the driver adds are of no interest while there is nothing to put into them.
      // Nor is there anything to be done before a translation that is missing has come.
    } while (this.#toGuest.length > 0 && ring.enableNotifications() && !queue.space.missPending);
    this.#listen();
  }

  #give(queue: DeviceQueue): void {
    const chain = this.#chain;
    if (chain.writableBytes === 0) this.#logger.warn("a receive buffer has no writable bytes");
    const count = chain.copyToWritable(0, this.#toGuest.peek(chain.writableBytes));
    this.#toGuest.drop(count);
    queue.complete(chain, count);
  }

  #serveTransmit(queue: DeviceQueue): void {
    const { ring } = queue;
    do {
      ring.disableNotifications();
      while (this.#toHost.length < MAX_CONSOLE_QUEUE_BYTES && queue.pop(this.#chain)) this.#take(queue);
      queue.publish();
      this.#flush();
      // The driver waits until the host's end has taken something: `onOutput` comes back here.
      if (this.#toHost.length >= MAX_CONSOLE_QUEUE_BYTES) return;
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
    chain.copyFromReadable(0, this.#toHost.reserve(readableBytes));
    this.#toHost.commit(readableBytes);
    queue.complete(chain, 0);
  }
}
