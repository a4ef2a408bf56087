/**
 * Numbers of the Linux ABI. They are the same on x86_64 and aarch64 unless an `arch` table says otherwise
 * (only x86_64 is tested). Source: the kernel's include/uapi headers.
 */
const isArm = process.arch === "arm64";

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  CREAT: 0o100,
  EXCL: 0o200,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
  // asm-generic and arm64 disagree on O_DIRECT and O_DIRECTORY; O_TMPFILE contains O_DIRECTORY.
  DIRECT: isArm ? 0o200000 : 0o40000,
  TMPFILE: 0o20000000 | (isArm ? 0o40000 : 0o200000),
} as const;

export const F = {
  GETFD: 1,
  SETFD: 2,
  GETFL: 3,
  SETFL: 4,
  DUPFD_CLOEXEC: 1030,
  SETPIPE_SZ: 1031,
  GETPIPE_SZ: 1032,
  ADD_SEALS: 1033,
  GET_SEALS: 1034,
} as const;

export const SEAL = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8 } as const;
export const MFD = { CLOEXEC: 1, ALLOW_SEALING: 2 } as const;
export const EFD = { NONBLOCK: O.NONBLOCK, CLOEXEC: O.CLOEXEC } as const;
export const PROT = { READ: 1, WRITE: 2 } as const;
export const MAP = { SHARED: 1, PRIVATE: 2, ANONYMOUS: 0x20, NORESERVE: 0x4000 } as const;
export const RWF = { NOWAIT: 8 } as const;
export const SPLICE = { MOVE: 1, NONBLOCK: 2 } as const;
export const SEEK = { SET: 0, END: 2, DATA: 3, HOLE: 4 } as const;
export const FALLOC = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;
export const POLL = { IN: 1, OUT: 4, ERR: 8, HUP: 16, NVAL: 32, RDHUP: 0x2000 } as const;

export const EPOLL = { CLOEXEC: O.CLOEXEC, CTL_ADD: 1, CTL_DEL: 2, CTL_MOD: 3 } as const;
/** struct epoll_event is packed on x86_64 only: {u32 events, u64 data}. */
export const EPOLL_EVENT_BYTES = isArm ? 16 : 12;
export const EPOLL_DATA_OFFSET = isArm ? 8 : 4;

export const AF_UNIX = 1;
export const SOCK = { STREAM: 1, DGRAM: 2, NONBLOCK: O.NONBLOCK, CLOEXEC: O.CLOEXEC } as const;
export const SOL_SOCKET = 1;
export const SO = { SNDBUF: 7, RCVBUF: 8, PEERCRED: 17, RCVTIMEO: 20, SNDTIMEO: 21 } as const;
export const SCM_RIGHTS = 1;
export const MSG = { CTRUNC: 0x8, DONTWAIT: 0x40, NOSIGNAL: 0x4000, CMSG_CLOEXEC: 0x40000000 } as const;
export const SHUT = { RD: 0, WR: 1, RDWR: 2 } as const;

/** System calls that are made by their number. */
export const SYS = {
  readv: isArm ? 65 : 19,
  writev: isArm ? 66 : 20,
  io_setup: isArm ? 0 : 206,
  io_submit: isArm ? 2 : 209,
  io_getevents: isArm ? 4 : 208,
  getrandom: isArm ? 278 : 318,
  userfaultfd: isArm ? 282 : 323,
} as const;
