import type { IoVector, NativeBuffer } from "../../src/sys/mod.ts";
import type { Chain } from "../../src/vring/mod.ts";

/** What an end tells its device, on the loop, never from within a call of the device's. */
export interface NetEndEvents {
  /** There may be a frame to read, as `listenFor` asked. It asks anew. */
  onInput(pair: number): void;
  /** Frames may be sent again. */
  onOutput(pair: number): void;
  /** The link came up or went down. */
  onLink(): void;
}

/** Frames in flight between a queue pair and its end. */
export interface PortState {
  /** Whole frames, virtio header first, that came in and were not taken. */
  readonly frames: readonly Uint8Array[];
  /** The beginning of a frame that is still coming in, as it is on the wire. */
  readonly partial: Uint8Array;
  /** A whole frame, virtio header first, that is on its way out; empty for none. */
  readonly outgoing: Uint8Array;
  /** How many bytes of it, as it is on the wire, are out already. */
  readonly sentBytes: number;
}

/** One queue pair's way in and out. Frames begin with a virtio header everywhere here. No call ever blocks. */
export interface NetPort {
  /** False while a frame is on its way that has to wait. */
  readonly canSend: boolean;
  /** Takes the chain's readable bytes as one frame, wholly. Only while `canSend`. */
  send(chain: Chain): void;
  /** The same for a frame in our own memory. */
  sendFrame(frame: NativeBuffer): void;
  /** No more frames come for now: whoever collects them may send. */
  flush?(): void;
  /** The next frame. It stays the next until `drop`, and valid until then. Its `num_buffers` may be written. */
  peek(): Uint8Array | undefined;
  drop(): void;
  /** Where frames can be read without a stop-over. */
  readonly direct?: DirectInput;
  /** Says whether anyone takes what comes in; an end with several ways in then chooses another. */
  setAttached?(attached: boolean): void;
  /** Which events are wanted. */
  listenFor(input: boolean, output: boolean): void;
  capture(): PortState;
  /** Takes over all but `frames`, which are the device's then. */
  restore(state: Omit<PortState, "frames">): void;
}

export interface DirectInput {
  /** False where the virtio header is not read, and has to be written. */
  readonly fillsHeader: boolean;
  hasFrame(): boolean;
  /** Reads the next frame into the pieces. Its size; 0 when there is none after all. */
  read(into: IoVector): number;
}

/** The host's end of a network device. */
export interface NetEnd extends Disposable {
  /** What it is, for log lines. */
  readonly label: string;
  /** One for each queue pair. */
  readonly ports: readonly NetPort[];
  /** Offload feature bits that it can serve. */
  readonly features: bigint;
  readonly linkUp: boolean;
  /** Called once, before anything else. Nothing happens before `activate`. */
  open(events: NetEndEvents): void;
  /** The device runs, with these features. */
  activate(features: bigint): void;
  /** The device is suspended: nothing is read, written or listened to until `activate`. */
  suspend(): void;
}

/** A vector of a chain's readable bytes from `skipBytes` on. False when there are too many pieces for one call. */
export function readablePieces(chain: Chain, vector: IoVector, skipBytes: number): boolean {
  if (chain.readableCount + vector.count > vector.capacity) return false;
  let skip = skipBytes;
  for (let i = 0; i < chain.readableCount; i++) {
    const length = chain.lengths[i]!;
    if (skip < length) vector.push(chain.addresses[i]! + skip, length - skip);
    skip = Math.max(0, skip - length);
  }
  return true;
}
