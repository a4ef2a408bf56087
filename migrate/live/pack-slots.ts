/** What a sender shares with a pack Worker: slots of a window each, and where its payload goes. */
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { frameBoundBytes } from "../snapshot/mod.ts";
import { MAX_WINDOW_HEAD_BYTES } from "./memory-window.ts";
import type { WindowPlace } from "./window-packer.ts";

const ROOM_BYTES = MAX_WINDOW_HEAD_BYTES + frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES);
const SLOT_BYTES = Math.ceil((MAX_SNAPSHOT_FRAME_BYTES + ROOM_BYTES) / 64) * 64;

export interface PackSetup {
  readonly memory: SharedArrayBuffer;
  /** For each stream. */
  readonly cacheBytes: number;
}

export interface PackJob extends WindowPlace {
  readonly slot: number;
  readonly stream: number;
  readonly sizeBytes: number;
}

export interface PackDone {
  readonly slot: number;
  readonly packedBytes?: number;
  readonly fault?: string;
}

export function allocateSlots(count: number): SharedArrayBuffer {
  return new SharedArrayBuffer(count * SLOT_BYTES);
}

export function slotViews(memory: SharedArrayBuffer, slot: number): { window: Uint8Array; room: Uint8Array } {
  const start = slot * SLOT_BYTES;
  return {
    window: new Uint8Array(memory, start, MAX_SNAPSHOT_FRAME_BYTES),
    room: new Uint8Array(memory, start + MAX_SNAPSHOT_FRAME_BYTES, ROOM_BYTES),
  };
}
