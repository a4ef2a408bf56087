import { z } from "zod";
import { xxh3 } from "../../src/state/mod.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import type { WorkloadConfig } from "../machine-file/mod.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { Pace } from "./pace.ts";
import { QueueBuffers } from "./queue-buffers.ts";
import { parseWorkloadState, type VerifyReport, type Workload, type WorkloadCounters } from "./workload.ts";

const QUEUE = { receive: 0, transmit: 1 } as const;
const BUFFERS = 32;
/** A virtio header of 12 bytes and the largest frame of an MTU of 1500. */
const BUFFER_BYTES = 2048;
const HEADER_BYTES = 12;
/** IEEE 802's number for local experiments. */
const ETHERTYPE = 0x88b5;
const SEQUENCE_AT = 16;
const CHECKSUM_AT = 24;
const FRAME_BYTES = 256;

const count = z.number().int().min(0);
const state = z.strictObject({
  sent: count,
  newest: count,
  counters: z.strictObject({ received: count, missed: count, late: count, torn: count }),
});
type State = z.infer<typeof state>;
type Config = Extract<WorkloadConfig, { kind: "frames" }>;

/**
 * Sends numbered frames, and checks those of the same kind that come in. A network may lose frames, so a missing one is counted
 * and is no failure; one that is damaged or comes a second time is.
 */
export class FramesWorkload implements Workload {
  readonly kind = "frames";
  /** Frames are sent when there is room: nothing is waited for. */
  readonly isIdle = true;
  readonly #toHost: QueueBuffers;
  readonly #toGuest: QueueBuffers;
  readonly #state: State;
  readonly #pace: Pace;

  constructor(
    readonly config: Config,
    readonly card: MachineDevice,
    readonly memory: MachineMemory,
    loop: EventLoop,
    restored?: unknown,
  ) {
    const buffers = (index: number) => {
      const queue = card.queues[index]!;
      return new QueueBuffers(queue, memory, Math.min(BUFFERS, queue.size), BUFFER_BYTES);
    };
    this.#toGuest = buffers(QUEUE.receive);
    this.#toHost = buffers(QUEUE.transmit);
    const fresh = { sent: 0, newest: 0, counters: { received: 0, missed: 0, late: 0, torn: 0 } };
    this.#state = restored === undefined ? fresh : parseWorkloadState(state, restored);
    this.#pace = new Pace(loop, config["pause-ms"], () => this.#turn());
  }

  get devices(): readonly MachineDevice[] {
    return [this.card];
  }

  run(): void {
    this.#pace.run();
  }

  pause(): void {
    this.#pace.pause();
  }

  onInterrupt(): void {
    this.#hear();
    this.#pace.again();
  }

  counters(): WorkloadCounters {
    return { sent: this.#state.sent, ...this.#state.counters };
  }

  exportState(): State {
    return structuredClone(this.#state);
  }

  verify(): VerifyReport {
    const { received, late, torn } = this.#state.counters;
    const failures =
      late + torn === 0 ? [] : [`${this.card.config.name}: ${torn} frames torn, ${late} repeated or late`];
    return { checked: received, lost: 0, torn, repeated: late, failures };
  }

  [Symbol.dispose](): void {
    this.pause();
  }

  #hear(): void {
    this.#toHost.drain();
    this.#toGuest.drain((bytes) => this.#judge(bytes.subarray(HEADER_BYTES)));
  }

  #turn(): void {
    this.#hear();
    while (this.#toGuest.offer());
    this.#toGuest.queue.notify();
    if (this.#toHost.send(numberedFrame(this.#state.sent + 1))) this.#state.sent++;
    this.#toHost.queue.notify();
  }

  #judge(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
    if (frame.length < FRAME_BYTES || view.getUint16(12) !== ETHERTYPE) return;
    const now = this.#state;
    const { counters } = now;
    const sequence = Number(view.getBigUint64(SEQUENCE_AT));
    counters.received++;
    if (view.getBigUint64(CHECKSUM_AT) !== checksumOf(frame)) counters.torn++;
    else if (sequence <= now.newest) counters.late++;
    else {
      counters.missed += sequence - now.newest - 1;
      now.newest = sequence;
    }
  }
}

/** With a virtio header of zeros before it, as a driver without offloads has it. */
function numberedFrame(sequence: number): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(HEADER_BYTES + FRAME_BYTES));
  bytes.fill(sequence & 0xff, HEADER_BYTES);
  const frame = bytes.subarray(HEADER_BYTES);
  const view = new DataView(bytes.buffer, HEADER_BYTES);
  frame.fill(0xff, 0, 6);
  // The second bit: an address that somebody made up.
  frame.set([0x02, 0, 0, 0, 0, 1], 6);
  view.setUint16(12, ETHERTYPE);
  view.setBigUint64(SEQUENCE_AT, BigInt(sequence));
  view.setBigUint64(CHECKSUM_AT, checksumOf(frame));
  return bytes;
}

/** Of all but the checksum itself. */
function checksumOf(frame: Uint8Array): bigint {
  const rest = frame.slice(0, FRAME_BYTES);
  rest.fill(0, CHECKSUM_AT, CHECKSUM_AT + 8);
  return BigInt(xxh3(rest));
}
