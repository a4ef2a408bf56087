import { MAX_NET_FILTER_ADDRESSES } from "../../src/limits.ts";
import type { StateFields } from "../state/mod.ts";
import { MAC_BYTES, NET_HEADER_BYTES } from "./config.ts";

export interface RxFilterState {
  /** A mask of the modes that are on, by `RX_MODES`. */
  readonly rxModes: number;
  /** Addresses, one after the other. */
  readonly unicast: Uint8Array;
  readonly multicast: Uint8Array;
  /** More addresses were given than a table holds: everything of that kind passes. */
  readonly unicastOverflow: boolean;
  readonly multicastOverflow: boolean;
}

/** Modes in the order of their commands (virtio 1.3, 5.1.6.5.1). */
export const RX_MODES = ["promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"] as const;
export type RxMode = (typeof RX_MODES)[number];

const bitOf = (mode: RxMode) => 1 << RX_MODES.indexOf(mode);
const TABLE_BYTES = MAX_NET_FILTER_ADDRESSES * MAC_BYTES;

/** Which frames a driver with a control queue of ours wants. As long as it says nothing: all. */
export class RxFilter {
  #modes = bitOf("promisc");
  #unicast: Uint8Array = new Uint8Array(0);
  #multicast: Uint8Array = new Uint8Array(0);
  #unicastOverflow = false;
  #multicastOverflow = false;

  get acceptsAll(): boolean {
    return this.#has("promisc");
  }

  reset(): void {
    this.restore({
      rxModes: bitOf("promisc"),
      unicast: new Uint8Array(0),
      multicast: new Uint8Array(0),
      unicastOverflow: false,
      multicastOverflow: false,
    });
  }

  setMode(mode: RxMode, on: boolean): void {
    this.#modes = on ? this.#modes | bitOf(mode) : this.#modes & ~bitOf(mode);
  }

  /** Takes copies of the tables, or remembers only that they are too long. */
  setTables(unicast: Uint8Array, multicast: Uint8Array): void {
    this.#unicastOverflow = unicast.length > TABLE_BYTES;
    this.#multicastOverflow = multicast.length > TABLE_BYTES;
    this.#unicast = this.#unicastOverflow ? new Uint8Array(0) : unicast.slice();
    this.#multicast = this.#multicastOverflow ? new Uint8Array(0) : multicast.slice();
  }

  /** Is a frame, virtio header first, for the driver with this address? */
  accepts(frame: Uint8Array, mac: Uint8Array): boolean {
    if (this.#has("promisc")) return true;
    const at = NET_HEADER_BYTES;
    if ((frame[at]! & 1) === 0) {
      if (this.#has("nouni")) return false;
      if (this.#has("alluni") || this.#unicastOverflow || isAt(frame, at, mac, 0)) return true;
      return contains(this.#unicast, frame, at);
    }
    if (isBroadcast(frame, at)) return !this.#has("nobcast");
    if (this.#has("nomulti")) return false;
    return this.#has("allmulti") || this.#multicastOverflow || contains(this.#multicast, frame, at);
  }

  capture(): RxFilterState {
    return {
      rxModes: this.#modes,
      unicast: this.#unicast.slice(),
      multicast: this.#multicast.slice(),
      unicastOverflow: this.#unicastOverflow,
      multicastOverflow: this.#multicastOverflow,
    };
  }

  restore(state: RxFilterState): void {
    this.#modes = state.rxModes;
    this.#unicast = state.unicast;
    this.#multicast = state.multicast;
    this.#unicastOverflow = state.unicastOverflow;
    this.#multicastOverflow = state.multicastOverflow;
  }

  #has(mode: RxMode): boolean {
    return (this.#modes & bitOf(mode)) !== 0;
  }
}

/** @throws FormatError */
export function checkRxFilter(fields: StateFields): RxFilterState {
  return {
    rxModes: fields.integer("rxModes", 0, (1 << RX_MODES.length) - 1),
    unicast: fields.bytes("unicast", TABLE_BYTES),
    multicast: fields.bytes("multicast", TABLE_BYTES),
    unicastOverflow: fields.boolean("unicastOverflow"),
    multicastOverflow: fields.boolean("multicastOverflow"),
  };
}

function isBroadcast(frame: Uint8Array, at: number): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (frame[at + i] !== 0xff) return false;
  return true;
}

function contains(table: Uint8Array, frame: Uint8Array, at: number): boolean {
  for (let entry = 0; entry < table.length; entry += MAC_BYTES) {
    if (isAt(frame, at, table, entry)) return true;
  }
  return false;
}

function isAt(frame: Uint8Array, at: number, mac: Uint8Array, entry: number): boolean {
  for (let i = 0; i < MAC_BYTES; i++) if (frame[at + i] !== mac[entry + i]) return false;
  return true;
}
