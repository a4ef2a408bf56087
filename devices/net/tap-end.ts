import { SyscallError, UsageError } from "../../src/errors.ts";
import { MAX_NET_FRAME_BYTES } from "../../src/limits.ts";
import type { Logger } from "../../src/logger.ts";
import {
  type EventLoop,
  IoVector,
  NativeBuffer,
  POLL,
  pollNow,
  TAP_WOULD_BLOCK,
  type Tap,
  TUN_F,
} from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { NET_HEADER_BYTES, netFeature } from "./config.ts";
import { LimitedLog } from "./limited-log.ts";
import {
  type DirectInput,
  type NetEnd,
  type NetEndEvents,
  type NetPort,
  type PortState,
  readablePieces,
} from "./net-end.ts";

/** Most pieces of one readv or writev (IOV_MAX). */
const MAX_PIECES = 1024;

const CSUM_AND_TSO = TUN_F.CSUM | TUN_F.TSO4 | TUN_F.TSO6;
const USO = TUN_F.USO4 | TUN_F.USO6;

/** A tap interface: the device's frames are those of the host's network. Offloads are what the kernel's tap can do. */
export class TapEnd implements NetEnd {
  readonly label: string;
  readonly ports: readonly TapPort[];
  readonly features: bigint;
  readonly #taps: readonly Tap[];
  readonly drops: LimitedLog;
  linkUp = true;
  #events: NetEndEvents | undefined;

  /** Takes the taps, one for each queue pair. @throws UsageError when they differ in their header */
  constructor(
    taps: readonly Tap[],
    readonly loop: EventLoop,
    readonly logger: Logger,
  ) {
    this.#taps = taps;
    this.drops = new LimitedLog(logger);
    this.label = `tap ${taps[0]?.name}`;
    const hasHeader = taps[0]?.hasVnetHeader ?? false;
    if (taps.length === 0 || taps.some((tap) => tap.hasVnetHeader !== hasHeader)) {
      throw new UsageError("the queues of a tap either all have a virtio header (IFF_VNET_HDR) or none has");
    }
    if (hasHeader) for (const tap of taps) tap.setVnetHeaderBytes(NET_HEADER_BYTES);
    this.features = hasHeader ? offloadFeatures(taps[0]!) : 0n;
    this.ports = taps.map(
      (tap, pair) =>
        new TapPort(tap, pair, this, {
          onInput: () => this.#events?.onInput(pair),
          onOutput: () => this.#events?.onOutput(pair),
          onGone: () => this.#onGone(),
        }),
    );
    // Frames are spread over the attached queues: until a guest takes from the others, all come through the first.
    for (const port of this.ports.slice(1)) port.setAttached(false);
  }

  open(events: NetEndEvents): void {
    this.#events = events;
  }

  activate(features: bigint): void {
    if (this.ports[0]!.headerBytes > 0) {
      const mask = offloadMask(features);
      for (const tap of this.#taps) tap.setOffload(mask);
    }
    for (const port of this.ports) port.setActive(true);
  }

  suspend(): void {
    for (const port of this.ports) port.setActive(false);
  }

  [Symbol.dispose](): void {
    this.suspend();
    for (const tap of this.#taps) tap[Symbol.dispose]();
  }

  #onGone(): void {
    if (!this.linkUp) return;
    this.linkUp = false;
    this.logger.error(`${this.label} is gone; the guest's link is down`);
    this.#events?.onLink();
  }
}

interface TapPortEvents {
  onInput(): void;
  onOutput(): void;
  onGone(): void;
}

/** One queue of a tap. */
class TapPort implements NetPort {
  /** 0 for a tap without IFF_VNET_HDR: the header is ours to add and to strip. */
  readonly headerBytes: number;
  readonly direct: DirectInput;
  readonly #vector = new IoVector(MAX_PIECES);
  readonly #incoming = new NativeBuffer(MAX_NET_FRAME_BYTES);
  #incomingBytes = 0;
  readonly #outgoing = new NativeBuffer(MAX_NET_FRAME_BYTES);
  #outgoingBytes = 0;
  #active = false;
  #attached = true;
  #mask = 0;
  #wanted = { input: false, output: false };

  constructor(
    readonly tap: Tap,
    readonly pair: number,
    readonly end: TapEnd,
    readonly events: TapPortEvents,
  ) {
    this.headerBytes = tap.hasVnetHeader ? NET_HEADER_BYTES : 0;
    this.direct = {
      fillsHeader: tap.hasVnetHeader,
      hasFrame: () => (pollNow(tap.fd, POLL.IN) & POLL.IN) !== 0,
      read: (into) => this.#read(into),
    };
  }

  get canSend(): boolean {
    return this.#outgoingBytes === 0;
  }

  send(chain: Chain): void {
    this.#vector.clear();
    const whole = readablePieces(chain, this.#vector, NET_HEADER_BYTES - this.headerBytes);
    if (whole && this.#write()) return;
    this.#outgoingBytes = chain.copyFromReadable(0, this.#outgoing.bytes);
    this.#retry();
  }

  sendFrame(frame: NativeBuffer): void {
    this.#outgoing.bytes.set(frame.bytes);
    this.#outgoingBytes = frame.sizeBytes;
    this.#retry();
  }

  peek(): Uint8Array | undefined {
    if (this.#incomingBytes === 0) {
      this.#vector.clear();
      this.#vector.push(this.#incoming.address, this.#incoming.sizeBytes);
      this.#incomingBytes = this.#read(this.#vector);
      if (this.#incomingBytes === 0) return undefined;
      if (this.headerBytes === 0) this.#incoming.bytes.fill(0, 0, NET_HEADER_BYTES);
    }
    return this.#incoming.bytes.subarray(0, this.#incomingBytes);
  }

  drop(): void {
    this.#incomingBytes = 0;
  }

  listenFor(input: boolean, output: boolean): void {
    this.#wanted = { input, output };
    this.#listen();
  }

  /** A queue that nobody serves leaves the interface, so that the kernel gives it no frames. */
  setAttached(attached: boolean): void {
    if (!this.tap.isMultiQueue || this.#attached === attached) return;
    this.tap.setAttached(attached);
    this.#attached = attached;
  }

  setActive(active: boolean): void {
    this.#active = active;
    this.#listen();
  }

  capture(): PortState {
    const frames = this.#incomingBytes === 0 ? [] : [this.peek()!.slice()];
    const outgoing = this.#outgoing.bytes.slice(0, this.#outgoingBytes);
    return { frames, partial: new Uint8Array(0), outgoing, sentBytes: 0 };
  }

  restore(state: Omit<PortState, "frames">): void {
    this.#incomingBytes = 0;
    this.#outgoing.bytes.set(state.outgoing);
    this.#outgoingBytes = state.outgoing.length;
  }

  /** Reads a frame to where its header shall be; the header itself is left alone where the tap has none. */
  #read(into: IoVector): number {
    const skip = NET_HEADER_BYTES - this.headerBytes;
    if (skip > 0) into.advance(skip);
    try {
      const count = this.tap.read(into);
      return count <= 0 ? 0 : count + skip;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      this.#lose(error);
      return 0;
    }
  }

  /** False when the tap takes nothing now. A frame that it refuses is lost, as on a wire. */
  #write(): boolean {
    try {
      return this.tap.write(this.#vector) !== TAP_WOULD_BLOCK;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      this.end.drops.warn(`${this.end.label} refused a frame: ${error.message}`);
      return true;
    }
  }

  #retry(): void {
    const skip = NET_HEADER_BYTES - this.headerBytes;
    this.#vector.clear();
    this.#vector.push(this.#outgoing.address + skip, this.#outgoingBytes - skip);
    if (this.#write()) this.#outgoingBytes = 0;
    this.#listen();
  }

  #listen(): void {
    const { input, output } = this.#wanted;
    const writes = this.#outgoingBytes > 0 || output;
    const wanted = this.#active && this.end.linkUp;
    const mask = wanted ? (input ? POLL.IN : 0) | (writes ? POLL.OUT : 0) : 0;
    if (mask === this.#mask) return;
    const { loop } = this.end;
    if (mask === 0) loop.unwatch(this.tap.fd);
    else if (this.#mask !== 0) loop.modify(this.tap.fd, mask);
    else loop.watch(this.tap.fd, mask, (ready) => this.#onReady(ready));
    this.#mask = mask;
  }

  #onReady(ready: number): void {
    if ((ready & POLL.ERR) !== 0 && (ready & (POLL.IN | POLL.OUT)) === 0) this.#lose();
    if ((ready & POLL.OUT) !== 0) {
      if (this.#outgoingBytes > 0) this.#retry();
      if (this.canSend) this.events.onOutput();
    }
    if ((ready & POLL.IN) !== 0) this.events.onInput();
  }

  /** Someone deleted the interface: it would be ready with an error for ever. */
  #lose(error?: SyscallError): void {
    if (error !== undefined) this.end.logger.error(`${this.end.label} cannot be read: ${error.message}`);
    this.events.onGone();
    this.#listen();
  }
}

function offloadFeatures(tap: Tap): bigint {
  const { CSUM, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, HOST_TSO4, HOST_TSO6, GUEST_USO4, GUEST_USO6, HOST_USO } =
    netFeature;
  const basic = tap.setOffload(CSUM_AND_TSO);
  // Linux 6.2 and newer.
  const uso = tap.setOffload(CSUM_AND_TSO | USO);
  tap.setOffload(0);
  return (
    (basic ? CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6 : 0n) |
    (uso ? GUEST_USO4 | GUEST_USO6 | HOST_USO : 0n)
  );
}

function offloadMask(features: bigint): number {
  const has = (feature: bigint) => (features & feature) === feature;
  // Without checksums to be completed the kernel takes none of the others.
  if (!has(netFeature.GUEST_CSUM)) return 0;
  return (
    TUN_F.CSUM |
    (has(netFeature.GUEST_TSO4) ? TUN_F.TSO4 : 0) |
    (has(netFeature.GUEST_TSO6) ? TUN_F.TSO6 : 0) |
    (has(netFeature.GUEST_USO4 | netFeature.GUEST_USO6) ? USO : 0)
  );
}
