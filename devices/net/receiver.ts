import type { DeviceQueue } from "../../src/backend/mod.ts";
import { MAX_NET_FRAME_BYTES } from "../../src/limits.ts";
import { IoVector, NativeBuffer } from "../../src/sys/mod.ts";
import { Chain } from "../../src/vring/mod.ts";
import type { ByteQuota } from "../rate-limit/mod.ts";
import { ETHERNET_HEADER_BYTES, NET_HEADER_BYTES, NUM_BUFFERS_OFFSET } from "./config.ts";
import type { LimitedLog } from "./limited-log.ts";
import type { DirectInput, NetPort } from "./net-end.ts";

/** Frames that are served before other fds of the loop get their turn. */
const FRAMES_PER_TURN = 256;
/** Most pieces of one readv (IOV_MAX). */
const MAX_PIECES = 1024;

/** What a receiver has to know of its device. */
export interface ReceiverSurroundings {
  readonly drops: LimitedLog;
  /** Frames may be spread over several buffers. */
  readonly mergesBuffers: boolean;
  /** True when nothing needs to look at frames before the guest has them. */
  readonly acceptsAll: boolean;
  accepts(frame: Uint8Array): boolean;
}

/** Why a receiver stopped. "starved": the driver has to add buffers; "limited": the quota is used up; "turn": come back. */
export type ReceiveEnd = "idle" | "starved" | "limited" | "turn";

/**
 * Brings frames from a port into the driver's buffers. Where the port can, it reads straight into them: only what of a frame
 * does not fit into its first buffer is copied.
 */
export class Receiver {
  /** Chains that were popped for a frame and not used, oldest first. The ring cannot take them back. */
  readonly #spares: Chain[] = [];
  readonly #free: Chain[] = [];
  readonly #vector = new IoVector(MAX_PIECES);
  readonly #spill = new NativeBuffer(MAX_NET_FRAME_BYTES);
  /** Whole frames that come before the port's. */
  #backlog: Uint8Array[] = [];

  constructor(
    readonly queue: DeviceQueue,
    readonly port: NetPort,
    readonly quota: ByteQuota,
    readonly around: ReceiverSurroundings,
    /** Frames of a restored state. They are the receiver's from now on. */
    backlog: Uint8Array[],
  ) {
    this.#backlog = backlog;
  }

  /** Serves the ring until one of the two sides has nothing more. */
  serve(): ReceiveEnd {
    const { queue } = this;
    let end: ReceiveEnd;
    do {
      queue.ring.disableNotifications();
      end = this.#serveTurn();
      queue.publish();
    } while (end === "starved" && queue.ring.enableNotifications() && !queue.space.missPending);
    return end;
  }

  /**
   * The ring stops. Buffers that were popped for a frame that found too few of them go back empty, which a driver takes for
   * a frame that is too short. Returns the frames that no one has had.
   */
  stop(): Uint8Array[] {
    for (const chain of this.#spares.splice(0)) this.queue.complete(chain, 0);
    this.queue.publish();
    return this.#backlog;
  }

  #serveTurn(): ReceiveEnd {
    for (let turns = FRAMES_PER_TURN; turns > 0; turns--) {
      if (this.quota.availableBytes === 0) return "limited";
      const { direct } = this.port;
      const straight = direct !== undefined && this.around.acceptsAll && this.#backlog.length === 0;
      const end = straight ? this.#receiveDirect(direct) : this.#receiveFrame();
      if (end !== undefined) return end;
    }
    return "turn";
  }

  /** Copies the next frame. Returns why that was not possible. */
  #receiveFrame(): ReceiveEnd | undefined {
    const waiting = this.#backlog[0];
    const frame = waiting ?? this.port.peek();
    if (frame === undefined) return "idle";
    const isFrame = frame.length >= NET_HEADER_BYTES + ETHERNET_HEADER_BYTES;
    if (isFrame && this.around.accepts(frame)) {
      const found = this.#gather(frame.length);
      if (found === "starved") return "starved";
      if (found === "enough") this.#deliver(frame);
    }
    if (waiting === undefined) this.port.drop();
    else this.#backlog.shift();
    return undefined;
  }

  #receiveDirect(direct: DirectInput): ReceiveEnd | undefined {
    if (!direct.hasFrame()) return "idle";
    if (this.#gather(NET_HEADER_BYTES) === "starved") return "starved";
    const chain = this.#spares[0]!;
    const roomBytes = this.#target(chain);
    const sizeBytes = direct.read(this.#vector);
    if (sizeBytes === 0) return "idle";
    if (sizeBytes <= roomBytes) {
      // A tap without a header of its own leaves this to us; one with a header leaves the number of buffers open.
      chain.copyToWritable(NUM_BUFFERS_OFFSET, ONE_BUFFER);
      if (!direct.fillsHeader) chain.copyToWritable(0, EMPTY_HEADER);
      this.#complete(sizeBytes);
      return undefined;
    }
    const frame = this.#collect(chain, roomBytes, sizeBytes);
    if (!direct.fillsHeader) frame.fill(0, 0, NET_HEADER_BYTES);
    this.#backlog.push(frame);
    return undefined;
  }

  /** Points the vector at a chain's writable bytes, then at the spill. Returns how many of the former there are. */
  #target(chain: Chain): number {
    const vector = this.#vector;
    vector.clear();
    for (let i = chain.readableCount; i < chain.pieceCount && vector.count < MAX_PIECES - 1; i++) {
      if (vector.totalBytes >= MAX_NET_FRAME_BYTES) break;
      vector.push(chain.addresses[i]!, chain.lengths[i]!);
    }
    const roomBytes = vector.totalBytes;
    vector.push(this.#spill.address, this.#spill.sizeBytes);
    return roomBytes;
  }

  /** A frame that did not fit into its first buffer, in one piece. */
  #collect(chain: Chain, roomBytes: number, sizeBytes: number): Uint8Array {
    const frame = new Uint8Array(sizeBytes);
    let done = 0;
    for (let i = chain.readableCount; done < roomBytes; i++) {
      const length = chain.lengths[i]!;
      this.queue.memory.read(chain.guestAddresses[i]!, frame, done, length);
      done += length;
    }
    frame.set(this.#spill.bytes.subarray(0, sizeBytes - roomBytes), roomBytes);
    return frame;
  }

  /** Pops until there is room for a frame. "never": there cannot be, and the frame is to be dropped. */
  #gather(sizeBytes: number): "enough" | "starved" | "never" {
    const { mergesBuffers, drops } = this.around;
    let roomBytes = 0;
    let descriptors = 0;
    for (let i = 0; ; i++) {
      if (i === this.#spares.length && !this.#pop()) break;
      const chain = this.#spares[i]!;
      roomBytes += chain.writableBytes;
      descriptors += chain.pieceCount;
      if (roomBytes >= sizeBytes) return "enough";
      if (!mergesBuffers) break;
    }
    // A driver without anything left to offer would be waited for in vain.
    const isHopeless = mergesBuffers ? descriptors >= this.queue.size : this.#spares.length > 0;
    if (!isHopeless) return "starved";
    drops.warn("a frame is larger than the driver's buffers and was dropped", { sizeBytes, roomBytes });
    return "never";
  }

  #pop(): boolean {
    const chain = this.#free.pop() ?? new Chain();
    while (this.queue.pop(chain)) {
      if (chain.writableBytes > 0) {
        this.#spares.push(chain);
        return true;
      }
      this.around.drops.warn("a receive buffer has no writable bytes");
      this.queue.complete(chain, 0);
    }
    this.#free.push(chain);
    return false;
  }

  #deliver(frame: Uint8Array): void {
    let buffers = 0;
    for (let room = 0; room < frame.length; buffers++) room += this.#spares[buffers]!.writableBytes;
    frame[NUM_BUFFERS_OFFSET] = buffers & 0xff;
    frame[NUM_BUFFERS_OFFSET + 1] = buffers >> 8;
    for (let done = 0; done < frame.length; ) {
      const chain = this.#spares[0]!;
      const count = Math.min(chain.writableBytes, frame.length - done);
      chain.copyToWritable(0, count === frame.length ? frame : frame.subarray(done, done + count));
      this.#complete(count);
      done += count;
    }
  }

  /** Gives the oldest chain back. */
  #complete(writtenBytes: number): void {
    const chain = this.#spares.shift()!;
    this.queue.complete(chain, writtenBytes);
    this.quota.take(writtenBytes);
    this.#free.push(chain);
  }
}

const ONE_BUFFER = Uint8Array.of(1, 0);
const EMPTY_HEADER = new Uint8Array(NUM_BUFFERS_OFFSET);
