import { MAX_CONSOLE_CHAIN_BYTES, MAX_CONSOLE_QUEUE_BYTES } from "../../src/limits.ts";
import type { StateFields } from "../state/mod.ts";

/** Version of the sections below. */
export const CONSOLE_STATE_VERSION = 1;

/** What a console carries from one process to the next: its size, and the bytes that are on their way. */
export interface ConsoleState {
  readonly columns: number;
  readonly rows: number;
  /** Read from the host's end, not yet given to the guest. */
  readonly toGuest: Uint8Array;
  /** Taken from the guest, not yet taken by the host's end. */
  readonly toHost: Uint8Array;
}

/** @throws FormatError */
export function checkConsoleState(fields: StateFields): ConsoleState {
  return {
    columns: fields.integer("columns", 0, 0xffff),
    rows: fields.integer("rows", 0, 0xffff),
    toGuest: fields.bytes("toGuest", MAX_CONSOLE_QUEUE_BYTES),
    toHost: fields.bytes("toHost", MAX_CONSOLE_QUEUE_BYTES + MAX_CONSOLE_CHAIN_BYTES),
  };
}
