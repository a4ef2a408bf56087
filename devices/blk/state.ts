import { CompatibilityError } from "../../src/errors.ts";
import { MAX_QUEUES } from "../../src/limits.ts";
import type { StateFields } from "../state/mod.ts";
import { ID_BYTES } from "./shared-settings.ts";

/** Version of the sections below. */
export const BLK_STATE_VERSION = 1;

/** What a block device carries from one process to the next. The disk's contents are not part of it. */
export interface BlkState {
  readonly capacityBytes: number;
  readonly readOnly: boolean;
  readonly numQueues: number;
  readonly id: string;
  /** The write cache as the driver has set it. */
  readonly writeback: boolean;
}

/** What the device at hand is; a state must fit it, because the driver has seen these and would not look again. */
export interface BlkIdentity {
  readonly capacityBytes: number;
  readonly readOnly: boolean;
  readonly numQueues: number;
  /** undefined: whatever the state says. */
  readonly id: string | undefined;
}

/** @throws FormatError, CompatibilityError */
export function checkBlkState(fields: StateFields, own: BlkIdentity): BlkState {
  const state: BlkState = {
    capacityBytes: fields.integer("capacityBytes", 0, Number.MAX_SAFE_INTEGER),
    readOnly: fields.boolean("readOnly"),
    numQueues: fields.integer("numQueues", 1, MAX_QUEUES),
    id: fields.string("id", ID_BYTES),
    writeback: fields.boolean("writeback"),
  };
  for (const name of ["capacityBytes", "readOnly", "numQueues", "id"] as const) {
    const mine = own[name];
    if (mine === undefined || mine === state[name]) continue;
    throw new CompatibilityError(
      `the state is of a disk with ${name} ${state[name]}, this one has ${mine}: start the device with what was saved`,
      { details: { field: name, saved: state[name], own: mine } },
    );
  }
  return state;
}
