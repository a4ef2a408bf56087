import { MAX_NET_FRAME_BYTES } from "../../src/limits.ts";
import type { EventLoop, NativeBuffer } from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { netFeature, OFFLOAD_FEATURES } from "./config.ts";
import { FrameQueue } from "./frame-queue.ts";
import type { NetEnd, NetEndEvents, NetPort, PortState } from "./net-end.ts";

// Virtio 1.3, 5.1.6: the header's flags and gso_type.
const FLAG_NEEDS_CSUM = 1;
const GSO = { none: 0, tcpv4: 1, tcpv6: 4, udp: 5, ecn: 0x80 } as const;

/**
 * An end in memory. What a device sends comes back to it, or goes to the device at the other end of a `pair`. Offloads
 * pass as they are: frames that the receiver has not negotiated are dropped.
 */
export class LoopbackEnd implements NetEnd {
  readonly label: string = "loopback";
  readonly ports: readonly LoopbackPort[];
  readonly features = OFFLOAD_FEATURES;
  readonly linkUp = true;
  acked = 0n;
  active = false;
  events: NetEndEvents | undefined;

  constructor(
    readonly loop: EventLoop,
    queuePairs = 1,
  ) {
    this.ports = Array.from({ length: queuePairs }, (_, pair) => new LoopbackPort(this, pair));
  }

  /** Two ends: what goes into one comes out of the other. */
  static pair(loop: EventLoop, queuePairs = 1): [LoopbackEnd, LoopbackEnd] {
    const [a, b] = [new LoopbackEnd(loop, queuePairs), new LoopbackEnd(loop, queuePairs)];
    for (let pair = 0; pair < queuePairs; pair++) {
      a.ports[pair]!.peer = b.ports[pair]!;
      b.ports[pair]!.peer = a.ports[pair]!;
    }
    return [a, b];
  }

  open(events: NetEndEvents): void {
    this.events = events;
  }

  activate(features: bigint): void {
    this.acked = features;
    this.active = true;
    for (const port of this.ports) port.notify();
  }

  suspend(): void {
    this.active = false;
  }

  [Symbol.dispose](): void {
    this.active = false;
    this.events = undefined;
  }
}

class LoopbackPort implements NetPort {
  peer: LoopbackPort = this;
  readonly #frames = new FrameQueue();
  #wanted = { input: false, output: false };
  #scheduled = false;

  constructor(
    readonly end: LoopbackEnd,
    readonly pair: number,
  ) {}

  get canSend(): boolean {
    return this.peer.hasRoom;
  }

  /** Room for a frame of any size, wherever it has to be placed. */
  get hasRoom(): boolean {
    return this.#frames.hasRoom(MAX_NET_FRAME_BYTES);
  }

  send(chain: Chain): void {
    const place = this.peer.place(chain.readableBytes);
    chain.copyFromReadable(0, place);
    this.peer.check(place);
  }

  sendFrame(frame: NativeBuffer): void {
    const place = this.peer.place(frame.sizeBytes);
    place.set(frame.bytes);
    this.peer.check(place);
  }

  flush(): void {
    this.peer.notify();
  }

  /** Room for a frame that comes in. */
  place(sizeBytes: number): Uint8Array {
    return this.#frames.push(sizeBytes)!;
  }

  /** Takes the newest frame back when its receiver cannot make sense of it. */
  check(frame: Uint8Array): void {
    if (!isUnderstood(frame, this.end.acked)) this.#frames.pop();
  }

  peek(): Uint8Array | undefined {
    return this.#frames.front();
  }

  drop(): void {
    this.#frames.shift();
    this.peer.notify();
  }

  listenFor(input: boolean, output: boolean): void {
    this.#wanted = { input, output };
    if (input || output) this.notify();
  }

  capture(): PortState {
    return {
      frames: this.#frames.toArray(),
      partial: new Uint8Array(0),
      outgoing: new Uint8Array(0),
      sentBytes: 0,
    };
  }

  /** Nothing is ever under way: a frame is here or there. One that was under way elsewhere goes into our queue's end. */
  restore(state: Omit<PortState, "frames">): void {
    this.#frames.clear();
    if (state.outgoing.length > 0) this.peer.place(state.outgoing.length).set(state.outgoing);
  }

  /** Tells the device, in the loop's next turn, what it waits for. */
  notify(): void {
    if (this.#scheduled || !this.#isDue) return;
    this.#scheduled = true;
    this.end.loop.schedule(0, () => {
      this.#scheduled = false;
      if (!this.#isDue) return;
      if (this.#wanted.input && this.#frames.length > 0) this.end.events?.onInput(this.pair);
      if (this.#wanted.output && this.canSend) this.end.events?.onOutput(this.pair);
    });
  }

  get #isDue(): boolean {
    const { input, output } = this.#wanted;
    return this.end.active && ((input && this.#frames.length > 0) || (output && this.canSend));
  }
}

function isUnderstood(frame: Uint8Array, acked: bigint): boolean {
  const has = (features: bigint) => (acked & features) !== 0n;
  if ((frame[0]! & FLAG_NEEDS_CSUM) !== 0 && !has(netFeature.GUEST_CSUM)) return false;
  switch (frame[1]! & ~GSO.ecn) {
    case GSO.none:
      return true;
    case GSO.tcpv4:
      return has(netFeature.GUEST_TSO4);
    case GSO.tcpv6:
      return has(netFeature.GUEST_TSO6);
    case GSO.udp:
      return has(netFeature.GUEST_USO4 | netFeature.GUEST_USO6);
    default:
      return false;
  }
}
