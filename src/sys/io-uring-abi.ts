/** Numbers of include/uapi/linux/io_uring.h and asm-generic/unistd.h; the same on x86_64 and aarch64. */
export const IO_URING_SYS = { setup: 425, enter: 426, register: 427 } as const;

export const OP = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  POLL_ADD: 6,
  ASYNC_CANCEL: 14,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
} as const;

/** Flags of a request: `fd` is an index into the registered files. */
export const SQE_FIXED_FILE = 1;
export const FSYNC_DATASYNC = 1;
export const POLL_ADD_MULTI = 1;
/** Of a completion: more will come for the same request. */
export const CQE_F_MORE = 2;

export const SETUP = {
  CQSIZE: 1 << 3,
  CLAMP: 1 << 4,
  SUBMIT_ALL: 1 << 7,
  COOP_TASKRUN: 1 << 8,
  TASKRUN_FLAG: 1 << 9,
  SINGLE_ISSUER: 1 << 12,
} as const;

export const FEAT = { SINGLE_MMAP: 1, NODROP: 2, EXT_ARG: 1 << 8 } as const;
export const ENTER = { GETEVENTS: 1, EXT_ARG: 1 << 3 } as const;
/** Flags that the kernel keeps in the submission ring: it holds completions back until it is entered. */
export const SQ_FLAG = { CQ_OVERFLOW: 2, TASKRUN: 4 } as const;
export const REGISTER = { FILES: 2, UNREGISTER_FILES: 3 } as const;

export const OFFSET_SQ_RING = 0;
export const OFFSET_SQES = 0x1000_0000;

/** struct io_uring_params: 120 bytes, `sq_off` from 40, `cq_off` from 80. Byte offsets of what is used. */
export const PARAMS = {
  sizeBytes: 120,
  sqEntries: 0,
  cqEntries: 4,
  flags: 8,
  features: 20,
  sqHead: 40,
  sqTail: 44,
  sqFlags: 56,
  sqArray: 64,
  cqHead: 80,
  cqTail: 84,
  cqCqes: 100,
} as const;

/** struct io_uring_sqe: 64 bytes. As 32-bit words. */
export const SQE_WORDS = 16;
export const SQE_BYTES = 64;
export const SQE = {
  /** opcode, flags << 8, ioprio << 16. */
  operation: 0,
  fd: 1,
  offsetLow: 2,
  offsetHigh: 3,
  addressLow: 4,
  addressHigh: 5,
  length: 6,
  flags: 7,
  userData: 8,
} as const;

/** struct io_uring_cqe: u64 user_data, s32 res, u32 flags. As 32-bit words. */
export const CQE_WORDS = 4;
export const CQE_BYTES = 16;
export const CQE = { userData: 0, result: 2, flags: 3 } as const;
