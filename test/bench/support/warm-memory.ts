const PAGE_BYTES = 4096;
/** One array has 4 GiB at most. */
const PIECE_BYTES = 2 ** 30;

/**
 * Touches this much memory in a process of its own, which then ends. A virtual machine may get its memory from the host
 * page by page at the first touch; whoever is measured first would pay for it.
 */
export async function warmMemory(sizeBytes: number): Promise<void> {
  const count = Math.ceil(sizeBytes / PIECE_BYTES);
  const pieces = `Array.from({ length: ${count} }, () => new Uint8Array(${PIECE_BYTES}))`;
  const code = `for (const piece of ${pieces}) for (let at = 0; at < piece.length; at += ${PAGE_BYTES}) piece[at] = 1;`;
  const child = Bun.spawn({ cmd: [process.execPath, "-e", code], stdio: ["ignore", "ignore", "inherit"] });
  const status = await child.exited;
  if (status !== 0) throw new Error(`touching ${sizeBytes} bytes of memory ended with status ${status}`);
}
