import { readFileSync } from "node:fs";
import { Errno, errnoName, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { FEAT, PARAMS, SETUP } from "./io-uring-abi.ts";
import { ioUringSetup } from "./io-uring-calls.ts";
import { NativeBuffer } from "./native-buffer.ts";

// What every ring asks for (Linux 5.18), and what spares interrupts of the thread and locks where the kernel has it (6.0):
// completions are then worked on when the thread enters the kernel the next time, and a flag says that there are some.
// Not DEFER_TASKRUN: an epoll_wait on such a ring is not woken by completions (tried on 6.18), only io_uring_enter is.
const BASE_FLAGS = SETUP.CQSIZE | SETUP.CLAMP | SETUP.SUBMIT_ALL;
const BEST_FLAGS = BASE_FLAGS | SETUP.SINGLE_ISSUER | SETUP.COOP_TASKRUN | SETUP.TASKRUN_FLAG;
const NEEDED_FEATURES = FEAT.SINGLE_MMAP | FEAT.NODROP | FEAT.EXT_ARG;

/** A new io_uring and where its parts are. The caller owns the fd. */
export interface IoUringSetup {
  readonly fd: Fd;
  readonly params: NativeBuffer;
}

/** Why this process has no io_uring; undefined where it has. */
export function ioUringObstacle(): string | undefined {
  try {
    using probe = openIoUring(1, 2).fd;
    void probe;
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** @throws SyscallError that says why, where the kernel, a sysctl or a seccomp filter is against it */
export function openIoUring(entries: number, completions: number): IoUringSetup {
  const params = new NativeBuffer(PARAMS.sizeBytes);
  for (const flags of [BEST_FLAGS, BASE_FLAGS]) {
    params.bytes.fill(0);
    params.view.setUint32(PARAMS.flags, flags, true);
    params.view.setUint32(PARAMS.cqEntries, completions, true);
    const number = ioUringSetup(entries, params.address);
    if (number >= 0) {
      const fd = new Fd(number, "io_uring");
      return { fd: checkFeatures(fd, params), params };
    }
    if (lastErrno() !== Errno.EINVAL) break;
  }
  throw syscallError("io_uring_setup", obstacleOf(lastErrno()), { entries, completions });
}

function checkFeatures(fd: Fd, params: NativeBuffer): Fd {
  const features = params.view.getUint32(PARAMS.features, true);
  if ((features & NEEDED_FEATURES) === NEEDED_FEATURES) return fd;
  fd[Symbol.dispose]();
  throw syscallError("io_uring_setup", "this kernel's io_uring is too old, Linux 5.18 is needed", {
    features,
  });
}

function obstacleOf(errno: number): string {
  switch (errnoName(errno)) {
    case "ENOSYS":
      return "this kernel has no io_uring, or a seccomp filter hides it";
    case "EPERM":
      return sysctlDisables()
        ? "the sysctl kernel.io_uring_disabled forbids it"
        : "a seccomp filter or security module forbids it, as container runtimes do";
    case "EINVAL":
      return "this kernel's io_uring is too old, Linux 5.18 is needed";
    case "ENOMEM":
      return "no memory, or RLIMIT_MEMLOCK is too small";
    default:
      return "";
  }
}

/** 1 forbids it to those outside kernel.io_uring_group and without CAP_SYS_ADMIN, 2 to all. */
function sysctlDisables(): boolean {
  try {
    return readFileSync("/proc/sys/kernel/io_uring_disabled", "utf8").trim() !== "0";
  } catch {
    return false;
  }
}
