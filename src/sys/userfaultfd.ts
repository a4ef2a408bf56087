import { O, SYS } from "./constants.ts";
import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

// include/uapi/linux/userfaultfd.h: _IOWR(0xAA, 0x3f, 24-byte struct) and _IOWR(0xAA, 0x00, 32-byte struct).
const UFFDIO_API = 0xc018aa3f;
const UFFDIO_REGISTER = 0xc020aa00;
const UFFD_API_VERSION = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING = 1;

/**
 * An fd on which faults of this process's memory can be read and answered, by whoever holds it.
 * @throws SyscallError EPERM where the user may not handle kernel faults (vm.unprivileged_userfaultfd)
 */
export function createUserfaultfd(): Fd {
  const number = check(libc.syscall(SYS.userfaultfd, O.CLOEXEC | O.NONBLOCK, 0, 0), "userfaultfd", "");
  const fd = new Fd(number, "userfaultfd");
  const request = new NativeBuffer(24);
  request.setPointer(0, UFFD_API_VERSION);
  try {
    check(libc.ioctl(fd.number, UFFDIO_API, request.address), "ioctl(UFFDIO_API)", fd.label);
    return fd;
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
}

/** Has missing pages of a range of this process's memory reported on `fd` instead of filled with zeros. */
export function registerMissingFaults(fd: Fd, address: number, sizeBytes: number): void {
  const request = new NativeBuffer(32);
  request.setPointer(0, address);
  request.setPointer(8, sizeBytes);
  request.setPointer(16, UFFDIO_REGISTER_MODE_MISSING);
  check(libc.ioctl(fd.number, UFFDIO_REGISTER, request.address), "ioctl(UFFDIO_REGISTER)", fd.label, {
    sizeBytes,
  });
}
