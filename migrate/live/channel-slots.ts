/** What a sender shares with the Worker of a channel: rooms for payloads, whose they are, and how to pack. */
import { MAX_WINDOW_HEAD_BYTES } from "./memory-window.ts";

/** So that a Worker goes on while earlier payloads go out. */
export const CHANNEL_SLOTS = 4;
/** A packet of multifd, that does not compress. */
const ROOM_BYTES = MAX_WINDOW_HEAD_BYTES + (512 << 10) + (8 << 10);
const LEVEL = 0;
const STOP = 1;
const SLOTS = 2;
const CONTROL_WORDS = SLOTS + CHANNEL_SLOTS;
const CONTROL_BYTES = Math.ceil((4 * CONTROL_WORDS) / 64) * 64;
/** Levels of zstd are above it. */
const NO_LEVEL = -1000;
const [FREE, USED] = [0, 1];
/** A Worker looks at least so often whether it is to stop. */
const LOOK_MS = 500;

export function allocateChannelSlots(): SharedArrayBuffer {
  return new SharedArrayBuffer(CONTROL_BYTES + CHANNEL_SLOTS * ROOM_BYTES);
}

export class ChannelSlots {
  readonly #control: Int32Array;

  constructor(readonly memory: SharedArrayBuffer) {
    this.#control = new Int32Array(memory, 0, CONTROL_WORDS);
  }

  get level(): number | undefined {
    const level = Atomics.load(this.#control, LEVEL);
    return level === NO_LEVEL ? undefined : level;
  }
  set level(level: number | undefined) {
    Atomics.store(this.#control, LEVEL, level ?? NO_LEVEL);
  }

  get isStopped(): boolean {
    return Atomics.load(this.#control, STOP) !== 0;
  }

  /** The Worker that waits for a slot gets none any more. */
  stop(): void {
    Atomics.store(this.#control, STOP, 1);
    for (let slot = 0; slot < CHANNEL_SLOTS; slot += 1) Atomics.notify(this.#control, SLOTS + slot);
  }

  /** The Worker waits until the slot is free, and has it; false when it is to stop. */
  take(slot: number): boolean {
    while (!this.isStopped) {
      if (Atomics.compareExchange(this.#control, SLOTS + slot, FREE, USED) === FREE) return true;
      Atomics.wait(this.#control, SLOTS + slot, USED, LOOK_MS);
    }
    return false;
  }

  release(slot: number): void {
    Atomics.store(this.#control, SLOTS + slot, FREE);
    Atomics.notify(this.#control, SLOTS + slot);
  }

  /** How many slots wait to go out. */
  get used(): number {
    let count = 0;
    for (let slot = 0; slot < CHANNEL_SLOTS; slot += 1)
      if (Atomics.load(this.#control, SLOTS + slot) !== FREE) count += 1;
    return count;
  }

  room(slot: number): Uint8Array {
    return new Uint8Array(this.memory, CONTROL_BYTES + slot * ROOM_BYTES, ROOM_BYTES);
  }
}

/** Where the Workers of all channels wait for each other. */
export class ChannelBarrier {
  readonly #words: Int32Array;

  constructor(
    readonly memory: SharedArrayBuffer,
    readonly count: number,
  ) {
    this.#words = new Int32Array(memory);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(8);
  }

  wait(isStopped: () => boolean): void {
    const turn = Atomics.load(this.#words, 1);
    if (Atomics.add(this.#words, 0, 1) + 1 === this.count) {
      Atomics.store(this.#words, 0, 0);
      Atomics.add(this.#words, 1, 1);
      Atomics.notify(this.#words, 1);
      return;
    }
    while (Atomics.load(this.#words, 1) === turn && !isStopped()) Atomics.wait(this.#words, 1, turn, LOOK_MS);
  }
}

export interface ChannelSetup {
  readonly slots: SharedArrayBuffer;
  readonly barrier: SharedArrayBuffer;
  readonly channels: number;
  /** Of this Worker's stream, from 1. */
  readonly stream: number;
  /** For pages that come again. */
  readonly cacheBytes: number;
}

/** What the Worker waits for. */
export interface ChannelStart {
  /** It stays the sender's. */
  readonly socket: number;
  readonly regions: readonly { readonly id: number; readonly name: string; readonly sizeBytes: number }[];
  /** For each region, a byte for each page: the stream that sent it last. */
  readonly owners: readonly SharedArrayBuffer[];
}

/** What the Worker says, in the order in which it came. */
export type ChannelWord =
  | { readonly kind: "window"; readonly slot: number; readonly packedBytes: number; readonly pages: number }
  | { readonly kind: "nothing"; readonly pages: number }
  | { readonly kind: "sync" }
  | { readonly kind: "end"; readonly fault?: string };
