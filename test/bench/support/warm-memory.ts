const PAGE_BYTES = 4096;

/**
 * Touches this much memory in a process of its own, which then ends. A virtual machine may get its memory from the host
 * page by page at the first touch; whoever is measured first would pay for it.
 */
export async function warmMemory(sizeBytes: number): Promise<void> {
  const code = `const bytes = new Uint8Array(${sizeBytes}); for (let at = 0; at < ${sizeBytes}; at += ${PAGE_BYTES}) bytes[at] = 1;`;
  const child = Bun.spawn({ cmd: [process.execPath, "-e", code], stdio: ["ignore", "ignore", "inherit"] });
  const status = await child.exited;
  if (status !== 0) throw new Error(`touching ${sizeBytes} bytes of memory ended with status ${status}`);
}
