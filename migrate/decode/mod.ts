/** Device states taken apart, for `vhu snapshot inspect`. */
export {
  type DeviceStateForm,
  decodeDeviceState,
  decodeDeviceStateAs,
  deviceStateForms,
  type StateOrigin,
} from "./device-state.ts";
export { diffTrees, type TreeDifference } from "./diff-trees.ts";
export type { StateTree } from "./state-tree.ts";
export { valueTree } from "./value-tree.ts";
