import { SyscallError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { type EventLoop, type Fd, type NativeBuffer, O, openFile, writeSome } from "../../src/sys/mod.ts";
import type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";

/** The same number on x86_64 and aarch64 (include/uapi/asm-generic/fcntl.h). */
const O_APPEND = 0o2000;

/** How long a file that took nothing (a full disk) is left alone. */
const RETRY_MS = 1_000;

/** Output only: what the guest writes is appended to a file, which is made if need be. */
export class FileEnd implements ConsoleEnd {
  readonly isOpen = true;
  readonly #file: Fd;
  #events: ConsoleEndEvents | undefined;
  #interest: ConsoleInterest = { input: false, output: false };
  #cancelRetry: (() => void) | undefined;

  /** @throws SyscallError */
  constructor(
    readonly path: string,
    readonly loop: EventLoop,
    readonly logger: Logger,
  ) {
    this.#file = openFile(path, O.WRONLY | O.CREAT | O_APPEND | O.NONBLOCK);
  }

  open(events: ConsoleEndEvents): void {
    this.#events = events;
  }

  listenFor(interest: ConsoleInterest): void {
    this.#interest = interest;
  }

  read(): number {
    return 0;
  }

  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number {
    if (this.#cancelRetry !== undefined) return 0;
    try {
      const taken = writeSome(this.#file, buffer, offset, sizeBytes);
      if (taken !== "would-block") return taken;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      this.logger.warn(`${this.path} takes no output: ${error.message}`);
    }
    this.#cancelRetry = this.loop.schedule(RETRY_MS, () => {
      this.#cancelRetry = undefined;
      if (this.#interest.output) this.#events?.onOutput();
    });
    return 0;
  }

  [Symbol.dispose](): void {
    this.#cancelRetry?.();
    this.#file[Symbol.dispose]();
  }
}
