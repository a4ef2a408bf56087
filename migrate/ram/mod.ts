/** A machine's memory, to and from a snapshot. */
export { copyMemory } from "./copy-memory.ts";
export { GuestMemory } from "./guest-memory.ts";
export { loadMemory } from "./load-memory.ts";
export { memoryPieces } from "./memory-pieces.ts";
export { saveMemory } from "./save-memory.ts";
export { savePages } from "./save-pages.ts";
export { sourceWithMemory } from "./source-with-memory.ts";
