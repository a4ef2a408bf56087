/** A machine's memory, to and from a snapshot. */
export { copyMemory } from "./copy-memory.ts";
export { loadMemory } from "./load-memory.ts";
export { saveMemory } from "./save-memory.ts";
