import { FileInput, type SpoolOptions } from "./file-input.ts";

/** A snapshot that came through a pipe, as an unnamed file; gone when disposed of. */
export interface SpooledPipe extends Disposable {
  /** Opens it, for as long as it is there. */
  readonly path: string;
}

/** Reads a pipe to its end. `fd` stays the caller's. @throws FormatError for what is no snapshot, SyscallError */
export function spoolPipe(fd: number, options: SpoolOptions = {}): SpooledPipe {
  const input = FileInput.spool(fd, options);
  return { path: `/proc/self/fd/${input.fd}`, [Symbol.dispose]: () => input[Symbol.dispose]() };
}
