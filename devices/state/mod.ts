/** Snapshot and restore for devices whose state is a small plain object. */
export { ObjectState, type ObjectStateOptions } from "./object-state.ts";
export { StateFields } from "./state-fields.ts";
