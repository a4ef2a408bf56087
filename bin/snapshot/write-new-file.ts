import { writeFileSync } from "node:fs";
import { SyscallError } from "../../src/errors.ts";

/** Writes a small file as a whole, readable for its owner only. @throws SyscallError */
export function writeNewFile(path: string, content: string | Uint8Array): void {
  try {
    writeFileSync(path, content, { mode: 0o600 });
  } catch (error) {
    throw new SyscallError("open", (error as NodeJS.ErrnoException).code ?? "EIO", path);
  }
}
