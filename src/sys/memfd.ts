import { F, MFD, SEAL } from "./constants.ts";
import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** Anonymous memory with an fd, to be shared with another process; of fixed size and sealed against shrinking. */
export function createMemfd(name: string, sizeBytes: number): Fd {
  const cName = NativeBuffer.cString(name);
  const fd = new Fd(
    check(libc.memfd_create(cName.address, MFD.CLOEXEC | MFD.ALLOW_SEALING), "memfd_create", name),
    `memfd ${name}`,
  );
  try {
    check(libc.ftruncate(fd.number, sizeBytes), "ftruncate", fd.label, { sizeBytes });
    check(libc.fcntl(fd.number, F.ADD_SEALS, SEAL.SHRINK | SEAL.GROW), "fcntl(F_ADD_SEALS)", fd.label);
    return fd;
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
}

/** True when nobody can shrink the file any more: only then is a mapping of a stranger's fd safe from SIGBUS. */
export function isSealedAgainstShrinking(fd: Fd): boolean {
  const seals = libc.fcntl(fd.number, F.GET_SEALS, 0);
  return seals >= 0 && (seals & SEAL.SHRINK) !== 0;
}
