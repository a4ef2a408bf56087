import { NetDevice, type NetEnd, type NetOptions, netFeature } from "../../../devices/net/mod.ts";
import type { Logger } from "../../../src/logger.ts";
import { EventLoop } from "../../../src/sys/mod.ts";
import { DrivenMemory, DrivenQueue, type Used } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";

export const HEADER_BYTES = 12;
export const MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);
export const BROADCAST = new Uint8Array(6).fill(0xff);
const DEADLINE_MS = 30_000;
const LOCAL_ETHERTYPE = 0x88b5;

/** What a driver with a control queue of the device's acknowledges, in these tests. */
export const WITH_CONTROL =
  netFeature.MRG_RXBUF |
  netFeature.CTRL_VQ |
  netFeature.CTRL_RX |
  netFeature.CTRL_RX_EXTRA |
  netFeature.CTRL_MAC_ADDR |
  netFeature.GUEST_ANNOUNCE;

export interface RigOptions extends NetOptions {
  /** Default: MRG_RXBUF. */
  readonly acked?: bigint;
  readonly packed?: boolean;
  readonly size?: number;
  /** Default: one of the rig's own. */
  readonly loop?: EventLoop;
}

/** A network device with an end, driven by a test: the queues of each pair, the control queue, and the loop. */
export class NetRig implements Disposable {
  readonly stack = new DisposableStack();
  readonly loop: EventLoop;
  readonly logger = recordingLogger();
  readonly driven: DrivenMemory;
  readonly device: NetDevice;
  readonly queues: DrivenQueue[] = [];

  constructor(makeEnd: (loop: EventLoop, logger: Logger) => NetEnd, options: RigOptions = {}) {
    const { acked = netFeature.MRG_RXBUF, packed = false, size = 64 } = options;
    this.loop = options.loop ?? this.stack.use(new EventLoop());
    this.driven = this.stack.use(new DrivenMemory());
    const end = makeEnd(this.loop, this.logger);
    this.device = this.stack.use(
      new NetDevice(end, this.loop, { mac: MAC, logger: this.logger, ...options }),
    );
    this.device.ackFeatures(acked);
    const pairs = end.ports.length;
    const queueCount = 2 * pairs + ((acked & netFeature.CTRL_VQ) === 0n ? 0 : 1);
    for (let i = 0; i < queueCount; i++) {
      this.queues.push(this.stack.use(new DrivenQueue(this.driven, this.device, i, { packed, size })));
    }
  }

  rx(pair = 0): DrivenQueue {
    return this.queues[2 * pair]!;
  }

  tx(pair = 0): DrivenQueue {
    return this.queues[2 * pair + 1]!;
  }

  /** Adds receive buffers of one piece. */
  offer(count: number, sizeBytes = 2048, pair = 0): void {
    for (let i = 0; i < count; i++) this.rx(pair).add([{ room: sizeBytes }]);
    this.rx(pair).kick();
  }

  /** Sends a frame as a driver does: the header in a piece of its own. */
  send(bytes: Uint8Array, pair = 0): void {
    if (!this.tx(pair).add([{ out: new Uint8Array(HEADER_BYTES) }, { out: bytes }]))
      throw new Error("the ring is full");
    this.tx(pair).kick();
  }

  /** The next frame without its header, put together from as many buffers as its header says. Runs the loop for it. */
  receive(pair = 0): Uint8Array {
    const first = this.await(() => this.rx(pair).take());
    const parts = [first];
    const buffers = first.written[10]! | (first.written[11]! << 8);
    while (parts.length < buffers) parts.push(this.rx(pair).take() ?? missing());
    const bytes = Buffer.concat(parts.map(({ written, writtenBytes }) => written.subarray(0, writtenBytes)));
    return new Uint8Array(bytes.subarray(HEADER_BYTES));
  }

  /** Runs the loop until `what` gives something. */
  await<T>(what: () => T | undefined): T {
    const end = performance.now() + DEADLINE_MS;
    for (;;) {
      const value = what();
      if (value !== undefined) return value;
      if (performance.now() > end) throw new Error("nothing came");
      this.loop.runOnce(10);
    }
  }

  /** Lets the loop do what is due, and a little more. */
  settle(): void {
    for (let i = 0; i < 5; i++) this.loop.runOnce(1);
  }

  /** A command on the control queue; the acknowledgement. */
  control(commandClass: number, command: number, data: Uint8Array): number | undefined {
    const queue = this.queues.at(-1)!;
    const used = queue.run([
      { out: Uint8Array.of(commandClass, command) },
      ...(data.length === 0 ? [] : [{ out: data }]),
      { room: 1 },
    ]);
    return used.writtenBytes === 1 ? used.written[0] : undefined;
  }

  suspend(): void {
    for (const queue of this.queues) queue.stop();
    this.device.enterSuspendedState();
  }

  resume(): void {
    for (const queue of this.queues) queue.start();
  }

  /** The drivers go on with another rig's device. */
  moveTo(other: NetDevice): void {
    for (const queue of this.queues) queue.moveTo(other);
  }

  [Symbol.dispose](): void {
    this.stack.dispose();
  }
}

/** An Ethernet frame of an experimental type, with bytes that tell it from others. */
export function frame(seed: number, sizeBytes = 100, to: Uint8Array = MAC): Uint8Array {
  const bytes = Uint8Array.from({ length: sizeBytes }, (_, i) => (seed * 31 + i * 7 + (i >> 8)) & 0xff);
  bytes.set(to);
  bytes.set([0x52, 0x54, 0, 0, 0, 1], 6);
  new DataView(bytes.buffer).setUint16(12, LOCAL_ETHERTYPE);
  return bytes;
}

function missing(): Used {
  throw new Error("a buffer of the frame is missing");
}
