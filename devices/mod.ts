/** The devices that vhu brings along. */
export * from "./blk/mod.ts";
export * from "./console/mod.ts";
export * from "./state/mod.ts";
