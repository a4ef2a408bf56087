/** Device states taken apart, for `vhu snapshot inspect`. */
export type { StateTree } from "./state-tree.ts";
export { valueTree } from "./value-tree.ts";
export { decodeVhuState } from "./vhu-state.ts";
