import assert from "node:assert/strict";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import {
  CQE,
  CQE_BYTES,
  CQE_F_MORE,
  CQE_WORDS,
  ENTER,
  FSYNC_DATASYNC,
  OFFSET_SQ_RING,
  OFFSET_SQES,
  OP,
  PARAMS,
  POLL_ADD_MULTI,
  REGISTER,
  SQ_FLAG,
  SQE,
  SQE_BYTES,
  SQE_FIXED_FILE,
  SQE_WORDS,
} from "./io-uring-abi.ts";
import { ioUringEnter, ioUringRegister } from "./io-uring-calls.ts";
import { openIoUring } from "./io-uring-setup.ts";
import { Mapping } from "./mapping.ts";
import { NativeBuffer } from "./native-buffer.ts";

const WORD = 2 ** 32;
/** struct io_uring_getevents_arg (24 bytes: sigmask, its size, minimal wait, pointer to the timespec), then the timespec. */
const GETEVENTS_BYTES = 24;

export interface IoUringOptions {
  /** Requests that can be prepared before a submit; rounded up to a power of two, at most 32768. */
  readonly entries: number;
  /** Completions that can wait; twice the entries by default. Keep fewer in flight: more cost a slow path in the kernel. */
  readonly completions?: number;
}

/**
 * One io_uring. For one thread: the one that made it. Preparing and reaping make no system call and allocate nothing.
 *
 * Every request carries a `token` (32 bits) that its completion brings back. Results are what the system call would
 * return, errors as negative errnos. Memory that a request names must stay until its completion.
 *
 * @example
 * using ring = IoUring.create({ entries: 64 });
 * ring.read(7, ring.unregistered(file), buffer.address, 4096, 0);
 * ring.submit(1);
 * while (ring.reap()) use(ring.token, ring.result);
 */
export class IoUring implements Disposable {
  /** Of the completion that `reap` took last. */
  token = 0;
  result = 0;
  /** More completions will come for the same request (a multishot poll). */
  isMore = false;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #ringWords: Uint32Array;
  readonly #results: Int32Array;
  readonly #sqes: Uint32Array;
  readonly #sqHead: number;
  readonly #sqTail: number;
  readonly #sqFlags: number;
  readonly #cqHead: number;
  readonly #cqTail: number;
  readonly #cqes: number;
  readonly #argument = new NativeBuffer(GETEVENTS_BYTES + 16);
  #tail = 0;
  #submitted = 0;
  #reaped = 0;
  #isRegistered = false;

  private constructor(
    readonly fd: Fd,
    readonly rings: Mapping,
    readonly entriesMapping: Mapping,
    params: DataView,
  ) {
    const word = (offset: number) => params.getUint32(offset, true) / 4;
    const window = rings.window(0, rings.sizeBytes);
    this.#ringWords = new Uint32Array(window);
    this.#results = new Int32Array(window);
    this.#sqes = new Uint32Array(entriesMapping.window(0, entriesMapping.sizeBytes));
    this.#sqMask = params.getUint32(PARAMS.sqEntries, true) - 1;
    this.#cqMask = params.getUint32(PARAMS.cqEntries, true) - 1;
    this.#sqHead = word(PARAMS.sqHead);
    this.#sqTail = word(PARAMS.sqTail);
    this.#sqFlags = word(PARAMS.sqFlags);
    this.#cqHead = word(PARAMS.cqHead);
    this.#cqTail = word(PARAMS.cqTail);
    this.#cqes = word(PARAMS.cqCqes);
    const array = word(PARAMS.sqArray);
    // Entry i is always submitted from place i: the indirection is written once.
    for (let i = 0; i <= this.#sqMask; i++) this.#ringWords[array + i] = i;
  }

  /** @throws SyscallError that says why, where the kernel, a sysctl or a seccomp filter is against it */
  static create(options: IoUringOptions): IoUring {
    const { entries, completions = entries * 2 } = options;
    using stack = new DisposableStack();
    const { fd, params } = openIoUring(entries, completions);
    stack.use(fd);
    const { view } = params;
    const sqEntries = view.getUint32(PARAMS.sqEntries, true);
    const sqBytes = view.getUint32(PARAMS.sqArray, true) + sqEntries * 4;
    const cqBytes = view.getUint32(PARAMS.cqCqes, true) + view.getUint32(PARAMS.cqEntries, true) * CQE_BYTES;
    const sizeBytes = Math.max(Math.ceil(sqBytes / 4) * 4, cqBytes);
    const rings = stack.use(Mapping.ofFd(fd, { sizeBytes, offset: OFFSET_SQ_RING }));
    const sqes = stack.use(Mapping.ofFd(fd, { sizeBytes: sqEntries * SQE_BYTES, offset: OFFSET_SQES }));
    const ring = new IoUring(fd, rings, sqes, view);
    stack.move();
    return ring;
  }

  /** Requests that can be prepared at once. */
  get capacity(): number {
    return this.#sqMask + 1;
  }

  /** Completions that can wait without the kernel's slow path. */
  get completionCapacity(): number {
    return this.#cqMask + 1;
  }

  /** Requests that were prepared and not yet taken by the kernel. */
  get prepared(): number {
    return (this.#tail - this.#submitted) >>> 0;
  }

  /** Requests in the kernel whose completion was not reaped. */
  get inFlight(): number {
    return (this.#submitted - this.#reaped) >>> 0;
  }

  /** Lets requests name these files by their index, which spares the kernel a look-up for each. Replaces earlier ones. */
  registerFiles(files: readonly Fd[]): void {
    if (this.#isRegistered) this.#register(REGISTER.UNREGISTER_FILES, 0, 0);
    this.#isRegistered = false;
    const numbers = new NativeBuffer(files.length * 4);
    for (const [i, file] of files.entries()) numbers.view.setInt32(i * 4, file.number, true);
    this.#register(REGISTER.FILES, numbers.address, files.length);
    this.#isRegistered = true;
  }

  // Each of these prepares one request and returns false, having done nothing, when the submission ring is full.
  // `file` is the index of a registered file, or what `unregistered` gives for any other.

  /** What names an fd that is not registered. It must stay open until the submit. */
  unregistered(fd: Fd): number {
    return -1 - fd.number;
  }

  nop(token: number): boolean {
    return this.#prepare(OP.NOP, token, -1, 0, 0, 0, 0);
  }

  read(token: number, file: number, address: number, sizeBytes: number, offset: number): boolean {
    return this.#prepare(OP.READ, token, file, offset, address, sizeBytes, 0);
  }

  write(token: number, file: number, address: number, sizeBytes: number, offset: number): boolean {
    return this.#prepare(OP.WRITE, token, file, offset, address, sizeBytes, 0);
  }

  /** @param vector address of `count` struct iovec, which the kernel has read when the submit returns */
  readv(token: number, file: number, vector: number, count: number, offset: number): boolean {
    return this.#prepare(OP.READV, token, file, offset, vector, count, 0);
  }

  writev(token: number, file: number, vector: number, count: number, offset: number): boolean {
    return this.#prepare(OP.WRITEV, token, file, offset, vector, count, 0);
  }

  /** fdatasync. Not ordered behind writes in flight. */
  syncData(token: number, file: number): boolean {
    return this.#prepare(OP.FSYNC, token, file, 0, 0, 0, FSYNC_DATASYNC);
  }

  /** @param mode FALLOC bits */
  fallocate(token: number, file: number, mode: number, offset: number, sizeBytes: number): boolean {
    // The length travels in the address field (io_uring_prep_rw's convention for fallocate), the mode in the length's.
    return this.#prepare(OP.FALLOCATE, token, file, offset, sizeBytes, mode, 0);
  }

  /** Completes with a POLL mask each time one of `events` comes up, until it is cancelled. */
  pollMultishot(token: number, file: number, events: number): boolean {
    return this.#prepare(OP.POLL_ADD, token, file, 0, 0, POLL_ADD_MULTI, events);
  }

  /** Asks for the end of the request with this token: it completes with -ECANCELED, or as if nothing had been asked. */
  cancel(token: number, target: number): boolean {
    return this.#prepare(OP.ASYNC_CANCEL, token, -1, 0, target, 0, 0);
  }

  /**
   * Gives what is prepared to the kernel and, with `minComplete`, waits until so many completions are there or the time
   * is over. Returns how many requests the kernel took: fewer while it is out of memory or holds completions back.
   */
  submit(minComplete = 0, timeoutMs = Infinity): number {
    const count = this.prepared;
    if (count > 0) Atomics.store(this.#ringWords, this.#sqTail, this.#tail);
    const wait = minComplete > 0 || this.hasDeferred ? ENTER.GETEVENTS : 0;
    if (count === 0 && wait === 0) return 0;
    const isTimed = minComplete > 0 && timeoutMs !== Infinity;
    if (isTimed) this.#setTimeout(timeoutMs);
    const taken = ioUringEnter(
      this.fd.number,
      count,
      minComplete,
      isTimed ? wait | ENTER.EXT_ARG : wait,
      isTimed ? this.#argument.address : 0,
      isTimed ? GETEVENTS_BYTES : 0,
    );
    if (taken < 0) this.#checkEnter(lastErrno());
    // The kernel moves the head past what it took also where the wait was what failed.
    const head = Atomics.load(this.#ringWords, this.#sqHead);
    const submitted = (head - this.#submitted) >>> 0;
    this.#submitted = head;
    return submitted;
  }

  /** True when the kernel holds completions that `submit` would bring: it must be entered for them. */
  get hasDeferred(): boolean {
    return (Atomics.load(this.#ringWords, this.#sqFlags) & (SQ_FLAG.TASKRUN | SQ_FLAG.CQ_OVERFLOW)) !== 0;
  }

  /** True when `reap` would take a completion. */
  get hasCompletion(): boolean {
    const words = this.#ringWords;
    return words[this.#cqHead] !== Atomics.load(words, this.#cqTail);
  }

  /** Takes the next completion into `token`, `result` and `isMore`. False when there is none. */
  reap(): boolean {
    const words = this.#ringWords;
    // Only this thread moves the head.
    const head = words[this.#cqHead]!;
    if (head === Atomics.load(words, this.#cqTail)) return false;
    const entry = this.#cqes + (head & this.#cqMask) * CQE_WORDS;
    // Plain loads behind the atomic one, as in the device's rings.
    this.token = words[entry + CQE.userData]!;
    this.result = this.#results[entry + CQE.result]!;
    this.isMore = (words[entry + CQE.flags]! & CQE_F_MORE) !== 0;
    if (!this.isMore) this.#reaped = (this.#reaped + 1) >>> 0;
    Atomics.store(words, this.#cqHead, head + 1);
    return true;
  }

  /** Closes the ring; the kernel cancels or ends what is in flight, possibly after this returns. Drain it first. */
  [Symbol.dispose](): void {
    this.rings[Symbol.dispose]();
    this.entriesMapping[Symbol.dispose]();
    this.fd[Symbol.dispose]();
  }

  #prepare(
    operation: number,
    token: number,
    file: number,
    offset: number,
    address: number,
    length: number,
    flags: number,
  ): boolean {
    const tail = this.#tail;
    if ((tail - this.#submitted) >>> 0 > this.#sqMask) return false;
    const sqes = this.#sqes;
    const base = (tail & this.#sqMask) * SQE_WORDS;
    const isFixed = file >= 0;
    sqes[base + SQE.operation] = isFixed ? operation | (SQE_FIXED_FILE << 8) : operation;
    sqes[base + SQE.fd] = isFixed ? file : -1 - file;
    sqes[base + SQE.offsetLow] = offset;
    sqes[base + SQE.offsetHigh] = offset / WORD;
    sqes[base + SQE.addressLow] = address;
    sqes[base + SQE.addressHigh] = address / WORD;
    sqes[base + SQE.length] = length;
    sqes[base + SQE.flags] = flags;
    sqes[base + SQE.userData] = token;
    this.#tail = (tail + 1) >>> 0;
    return true;
  }

  #setTimeout(timeoutMs: number): void {
    const { view, address } = this.#argument;
    this.#argument.setPointer(16, address + GETEVENTS_BYTES);
    const seconds = Math.floor(timeoutMs / 1000);
    view.setBigInt64(GETEVENTS_BYTES, BigInt(seconds), true);
    view.setBigInt64(GETEVENTS_BYTES + 8, BigInt(Math.ceil((timeoutMs - seconds * 1000) * 1e6)), true);
  }

  /** EBUSY and EAGAIN: reap first, then submit again. ETIME, EINTR: the wait is over, what was submitted is. */
  #checkEnter(errno: number): void {
    if (!RETRIED.includes(errno)) throw syscallError("io_uring_enter", this.fd.label);
  }

  #register(operation: number, argument: number, count: number): void {
    assert(this.inFlight === 0, "files are registered while nothing is in flight");
    check(ioUringRegister(this.fd.number, operation, argument, count), "io_uring_register", this.fd.label, {
      operation,
      count,
    });
  }
}

// Not in Errno: ETIME 62, EBUSY 16 (asm-generic/errno*.h).
const RETRIED: readonly number[] = [Errno.EINTR, Errno.EAGAIN, 62, 16];
