import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import type { EventLoop, NativeBuffer } from "../../src/sys/mod.ts";
import type { ByteQuota } from "../rate-limit/mod.ts";
import type { NetPort, PortState } from "./net-end.ts";
import { Receiver, type ReceiverSurroundings } from "./receiver.ts";
import { Transmitter } from "./transmitter.ts";

export interface Quotas {
  readonly receive: ByteQuota;
  readonly transmit: ByteQuota;
}

/** A receive and a transmit queue, and the port between which they move frames. */
export class QueuePair {
  #receiver: Receiver | undefined;
  #transmitter: Transmitter | undefined;
  /** Whole frames from the port that no receiver has. */
  #backlog: Uint8Array[] = [];
  /** Goes out before the guest's next frame. */
  #announcement: NativeBuffer | undefined;
  #wantsInput = false;
  #wantsOutput = false;
  #served = false;
  #running = false;
  readonly #turns = new Set<() => void>();

  constructor(
    readonly port: NetPort,
    readonly loop: EventLoop,
    readonly quotas: Quotas,
    readonly around: ReceiverSurroundings,
    /** Does the driver use this pair? */
    readonly isActive: () => boolean,
  ) {}

  startReceive(queue: DeviceQueue): QueueRunner {
    const receiver = new Receiver(queue, this.port, this.quotas.receive, this.around, this.#backlog);
    this.#receiver = receiver;
    return { onKick: () => this.#receive(receiver) };
  }

  startTransmit(queue: DeviceQueue): QueueRunner {
    const transmitter = new Transmitter(queue, this.port, this.quotas.transmit, this.around.drops);
    this.#transmitter = transmitter;
    return { onKick: () => this.#transmit(transmitter), discard: () => queue.serve(() => 0) };
  }

  stopReceive(): void {
    this.#backlog = this.#receiver?.stop() ?? [];
    this.#receiver = undefined;
    this.#wantsInput = false;
    this.#listen();
    this.port.setAttached?.(false);
  }

  stopTransmit(): void {
    this.#transmitter = undefined;
    this.#wantsOutput = false;
    this.#listen();
  }

  /** The port has something to read. A ring that is disabled does not react: it leaves the frames to the other pairs. */
  onInput(): void {
    this.#served = false;
    this.#receiver?.queue.wake();
    if (this.#served) return;
    this.#wantsInput = false;
    this.#listen();
    this.port.setAttached?.(false);
  }

  onOutput(): void {
    this.#sendAnnouncement();
    this.#wantsOutput = false;
    this.#transmitter?.queue.wake();
    this.#listen();
  }

  wakeReceive(): void {
    this.#receiver?.queue.wake();
  }

  wakeTransmit(): void {
    this.#transmitter?.queue.wake();
  }

  /** Sends a frame of our own, as soon as the port takes it. A newer one replaces one that waits. */
  announce(frame: NativeBuffer): void {
    this.#announcement = frame;
    this.#sendAnnouncement();
    this.#listen();
  }

  /** Takes part in what comes in, or leaves it to the other pairs. */
  attach(): void {
    this.port.setAttached?.(this.#receiver !== undefined && this.isActive());
  }

  resume(): void {
    this.#running = true;
    this.#sendAnnouncement();
  }

  suspend(): void {
    this.#running = false;
    for (const cancel of this.#turns) cancel();
    this.#turns.clear();
  }

  /** Frames that no guest has asked for are dropped. */
  reset(): void {
    this.#backlog = [];
    this.#announcement = undefined;
  }

  capture(): PortState {
    const state = this.port.capture();
    return { ...state, frames: [...this.#backlog, ...state.frames] };
  }

  restore(state: PortState): void {
    this.#backlog = [...state.frames];
    this.port.restore(state);
  }

  #receive(receiver: Receiver): void {
    this.#served = true;
    this.attach();
    const end = receiver.serve();
    this.#wantsInput = end === "idle";
    if (end === "limited") this.quotas.receive.wait();
    if (end === "turn") this.#later(() => receiver.queue.wake());
    this.#listen();
  }

  #transmit(transmitter: Transmitter): void {
    const end = transmitter.serve();
    this.#wantsOutput = end === "blocked";
    if (end === "limited") this.quotas.transmit.wait();
    if (end === "turn") this.#later(() => transmitter.queue.wake());
    this.#listen();
  }

  #later(wake: () => void): void {
    const cancel = this.loop.schedule(0, () => {
      this.#turns.delete(cancel);
      wake();
    });
    this.#turns.add(cancel);
  }

  #sendAnnouncement(): void {
    if (this.#announcement === undefined || !this.#running || !this.port.canSend) return;
    this.port.sendFrame(this.#announcement);
    this.port.flush?.();
    this.#announcement = undefined;
  }

  #listen(): void {
    this.port.listenFor(this.#wantsInput, this.#wantsOutput || this.#announcement !== undefined);
  }
}
