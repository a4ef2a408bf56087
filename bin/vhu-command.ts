/** How to start another vhu: the same runtime, the same program. */
export const vhuCommand: readonly string[] = [process.execPath, Bun.main];
