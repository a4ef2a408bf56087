import { OutputFile, writeAll } from "../../migrate/snapshot/mod.ts";

/** Writes a small file as a whole or not at all, readable for its owner only. @throws SyscallError, UsageError */
export function writeNewFile(path: string, content: string): void {
  using file = new OutputFile(path);
  writeAll(file.fd, new TextEncoder().encode(content), path);
  file.publish();
}
