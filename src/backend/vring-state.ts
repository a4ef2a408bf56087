import { ProtocolError } from "../errors.ts";
import { MAX_QUEUE_SIZE } from "../limits.ts";
import { disposeAll, type Fd } from "../sys/mod.ts";
import type { VringAddr } from "../wire/mod.ts";
import type { DeviceQueue } from "./device-queue.ts";

/** What was told about one vring, whether it runs or not. Owns the fds. */
export class VringState implements Disposable {
  num = 0;
  address: VringAddr | undefined;
  /** undefined: never set, then a ring begins at its start. */
  base: number | undefined;
  kick: Fd | undefined;
  call: Fd | undefined;
  err: Fd | undefined;
  /** SET_VRING_KICK came, with or without an fd: the ring is started, though it may be disabled or wait for addresses. */
  started = false;
  enabled = false;
  /** Out of service until it is stopped: the driver broke it, or its memory went away. */
  broken = false;
  /** Its requests did not end in time, so where it stands is not known: it can only be reset. */
  isLost = false;
  /** The ring as the device runs it. */
  queue: DeviceQueue | undefined;
  /** It runs in a ring Worker, and not as `queue`. */
  isInWorker = false;

  constructor(readonly index: number) {}

  /** It runs, here or in a Worker, unless it is disabled. */
  get isOpen(): boolean {
    return this.queue !== undefined || this.isInWorker;
  }

  setNum(num: number): void {
    if (num < 1 || num > MAX_QUEUE_SIZE) {
      throw new ProtocolError(`is ${num}, expected 1 to ${MAX_QUEUE_SIZE}`, "SET_VRING_NUM", "num");
    }
    this.num = num;
  }

  /** Replaces one of the fds; undefined where the front-end says that there is none. */
  replace(which: "kick" | "call" | "err", fd: Fd | undefined): void {
    this[which]?.[Symbol.dispose]();
    this[which] = fd;
  }

  /** The base when the ring was never run: as set, else the start. Packed rings begin with both wrap counters at 1. */
  initialBase(packed: boolean): number {
    return this.base ?? (packed ? 0x80008000 : 0);
  }

  [Symbol.dispose](): void {
    disposeAll([this.kick, this.call, this.err].filter((fd) => fd !== undefined));
  }
}
