import { FormatError, PeerError } from "../../src/errors.ts";
import { MAX_NET_FRAME_BYTES } from "../../src/limits.ts";
import type { Logger } from "../../src/logger.ts";
import {
  disposeAll,
  type EventLoop,
  type Fd,
  IoVector,
  NativeBuffer,
  POLL,
  sendVector,
  type UnixSocket,
  WOULD_BLOCK,
} from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { NET_HEADER_BYTES } from "./config.ts";
import { type NetEnd, type NetEndEvents, type NetPort, type PortState, readablePieces } from "./net-end.ts";
import { LENGTH_BYTES, StreamInput } from "./stream-framing.ts";
import { StreamLink, type StreamPlace } from "./stream-link.ts";

/** Most pieces of one sendmsg (IOV_MAX). */
const MAX_PIECES = 1024;

/**
 * A UNIX stream socket in the framing of QEMU's `-netdev stream`. No offloads: the framing has no place for them. While no
 * peer is there the link is down and what the guest sends is lost, as on a wire.
 */
export class StreamEnd implements NetEnd, NetPort {
  readonly features = 0n;
  readonly ports: readonly NetPort[] = [this];
  readonly #link: StreamLink;
  /** A restored state goes on in the middle of a frame only on the connection that it was saved on. */
  readonly #continues: boolean;
  readonly #input = new StreamInput();
  readonly #vector = new IoVector(MAX_PIECES);
  readonly #length = new NativeBuffer(LENGTH_BYTES);
  /** A frame as it is on the wire, of which only a part is out. */
  readonly #outgoing = new NativeBuffer(LENGTH_BYTES + MAX_NET_FRAME_BYTES);
  #outgoingBytes = 0;
  #sentBytes = 0;
  #events: NetEndEvents | undefined;
  #active = false;
  #mask = -1;
  #wanted = { input: false, output: false };

  /** Takes the socket, where one is given. @throws UsageError when the path to listen at is taken */
  constructor(
    place: StreamPlace,
    readonly loop: EventLoop,
    readonly logger: Logger,
  ) {
    this.#continues = "connected" in place;
    this.#link = new StreamLink(place, loop, logger, () => this.#onUp());
  }

  get label(): string {
    return this.#link.label;
  }

  get linkUp(): boolean {
    return this.#link.socket !== undefined;
  }

  get canSend(): boolean {
    return this.#outgoingBytes === 0;
  }

  open(events: NetEndEvents): void {
    this.#events = events;
  }

  activate(_features: bigint): void {
    this.#active = true;
    this.#link.setActive(true);
    this.#listen();
  }

  suspend(): void {
    this.#active = false;
    this.#link.setActive(false);
    this.#listen();
  }

  send(chain: Chain): void {
    const { socket } = this.#link;
    if (socket === undefined) return;
    const sizeBytes = chain.readableBytes - NET_HEADER_BYTES;
    this.#length.view.setUint32(0, sizeBytes);
    this.#vector.clear();
    this.#vector.push(this.#length.address, LENGTH_BYTES);
    let sent = 0;
    if (readablePieces(chain, this.#vector, NET_HEADER_BYTES)) sent = this.#transmit(socket);
    if (sent === LENGTH_BYTES + sizeBytes || !this.linkUp) return;
    const rest = this.#outgoing.bytes;
    chain.copyFromReadable(NET_HEADER_BYTES, rest.subarray(LENGTH_BYTES, LENGTH_BYTES + sizeBytes));
    this.#beginOutgoing(sizeBytes, sent);
  }

  sendFrame(frame: NativeBuffer): void {
    if (!this.linkUp) return;
    this.#outgoing.bytes.set(frame.bytes.subarray(NET_HEADER_BYTES), LENGTH_BYTES);
    this.#beginOutgoing(frame.sizeBytes - NET_HEADER_BYTES, 0);
  }

  peek(): Uint8Array | undefined {
    try {
      const frame = this.#input.peek();
      if (frame !== undefined || !this.#receive()) return frame;
      return this.#input.peek();
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      // Where the next frame begins is unknown.
      this.#input.replace(new Uint8Array(0));
      this.#hangUp(error.message);
      return undefined;
    }
  }

  drop(): void {
    this.#input.drop();
  }

  listenFor(input: boolean, output: boolean): void {
    this.#wanted = { input, output };
    this.#listen();
  }

  capture(): PortState {
    const copy = new StreamInput();
    copy.replace(this.#input.toBytes());
    const outgoing = new Uint8Array(this.canSend ? 0 : this.#outgoingBytes - LENGTH_BYTES + NET_HEADER_BYTES);
    if (!this.canSend) {
      outgoing.set(this.#outgoing.bytes.subarray(LENGTH_BYTES, this.#outgoingBytes), NET_HEADER_BYTES);
    }
    return { frames: copy.takeAll(), partial: copy.toBytes(), outgoing, sentBytes: this.#sentBytes };
  }

  restore({ partial, outgoing, sentBytes }: Omit<PortState, "frames">): void {
    this.#input.replace(this.#continues ? partial : new Uint8Array(0));
    this.#outgoingBytes = this.#sentBytes = 0;
    if (outgoing.length === 0) return;
    const sizeBytes = outgoing.length - NET_HEADER_BYTES;
    this.#outgoing.bytes.set(outgoing.subarray(NET_HEADER_BYTES), LENGTH_BYTES);
    this.#outgoing.view.setUint32(0, sizeBytes);
    this.#outgoingBytes = LENGTH_BYTES + sizeBytes;
    if (this.#continues) this.#sentBytes = sentBytes;
  }

  [Symbol.dispose](): void {
    this.suspend();
    this.#link[Symbol.dispose]();
  }

  #beginOutgoing(sizeBytes: number, sentBytes: number): void {
    this.#outgoing.view.setUint32(0, sizeBytes);
    this.#outgoingBytes = LENGTH_BYTES + sizeBytes;
    this.#sentBytes = sentBytes;
    this.#sendRest();
  }

  #sendRest(): void {
    const { socket } = this.#link;
    if (socket !== undefined && !this.canSend) {
      this.#vector.clear();
      this.#vector.push(this.#outgoing.address + this.#sentBytes, this.#outgoingBytes - this.#sentBytes);
      this.#sentBytes += this.#transmit(socket);
      if (this.#sentBytes >= this.#outgoingBytes) this.#outgoingBytes = this.#sentBytes = 0;
    }
    this.#listen();
  }

  /** The bytes of the vector that were taken now; 0 also when the peer has gone. */
  #transmit(socket: UnixSocket): number {
    try {
      const sent = sendVector(socket.fd, this.#vector);
      return sent === WOULD_BLOCK ? 0 : sent;
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      this.#hangUp();
      return 0;
    }
  }

  /** Reads what is there. False when that is nothing. */
  #receive(): boolean {
    const { socket } = this.#link;
    if (socket === undefined) return false;
    const input = this.#input;
    const offset = input.end;
    const fds: Fd[] = [];
    const count = socket.receive(input.buffer, offset, input.buffer.sizeBytes - offset, fds, true);
    disposeAll(fds);
    if (count === 0) this.#hangUp();
    if (count <= 0) return false;
    input.commit(count);
    return true;
  }

  #onUp(): void {
    this.#mask = -1;
    this.#sendRest();
    this.loop.schedule(0, () => {
      this.#events?.onLink();
      if (this.#active && this.canSend) this.#events?.onOutput(0);
    });
  }

  /** What the lost connection had begun is void; whole frames that came over it are not. */
  #hangUp(why = "the peer hung up"): void {
    this.#input.replace(wholeFrames(this.#input.toBytes()));
    this.#outgoingBytes = this.#sentBytes = 0;
    this.#mask = -1;
    this.#link.drop(why);
    this.loop.schedule(0, () => this.#events?.onLink());
  }

  #listen(): void {
    const fd = this.#link.socket?.fd;
    if (fd === undefined) return;
    const { input, output } = this.#wanted;
    const writes = !this.canSend || output;
    const mask = this.#active ? (input ? POLL.IN : 0) | (writes ? POLL.OUT : 0) : 0;
    if (mask === this.#mask) return;
    if (mask === 0) this.loop.unwatch(fd);
    else if (this.loop.isWatched(fd)) this.loop.modify(fd, mask);
    else this.loop.watch(fd, mask, (ready) => this.#onReady(ready));
    this.#mask = mask;
  }

  #onReady(ready: number): void {
    if ((ready & POLL.OUT) !== 0) {
      this.#sendRest();
      if (this.canSend) this.#events?.onOutput(0);
    }
    if ((ready & POLL.IN) !== 0) this.#events?.onInput(0);
    else if ((ready & (POLL.HUP | POLL.ERR)) !== 0) this.#hangUp();
  }
}

/** The part of a stream that is whole frames. */
function wholeFrames(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let end = 0;
  while (end + LENGTH_BYTES <= bytes.length) {
    const next = end + LENGTH_BYTES + view.getUint32(end);
    if (next > bytes.length) break;
    end = next;
  }
  return bytes.subarray(0, end);
}
