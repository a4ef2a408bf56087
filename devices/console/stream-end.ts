import { SyscallError } from "../../src/errors.ts";
import { type EventLoop, Fd, type NativeBuffer, PeerStream, POLL } from "../../src/sys/mod.ts";
import type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";

/**
 * A console end on a pair of fds, e.g. standard input and output: pipes, terminals, sockets or files, whose flags are
 * left alone. The end of the input only ends the input.
 */
export class StreamEnd implements ConsoleEnd {
  readonly isOpen = true;
  readonly #input: PeerStream;
  readonly #output: PeerStream;
  #events: ConsoleEndEvents | undefined;
  #inputEnded = false;
  #interest: ConsoleInterest = { input: false, output: false };
  #cancelInput: (() => void) | undefined;

  /** Takes both fds. */
  constructor(
    input: Fd,
    output: Fd,
    readonly loop: EventLoop,
  ) {
    this.#input = PeerStream.forReading(input);
    this.#output = PeerStream.forWriting(output);
  }

  /** Standard input and output of this process; they stay open when the end is disposed of. */
  static ofProcess(loop: EventLoop): StreamEnd {
    // Borrowed only for the duration of the call: `take` keeps the numbers from being closed.
    const [input, output] = [new Fd(0, "standard input"), new Fd(1, "standard output")];
    try {
      return new StreamEnd(input.duplicate(), output.duplicate(), loop);
    } finally {
      input.take();
      output.take();
    }
  }

  open(events: ConsoleEndEvents): void {
    this.#events = events;
  }

  listenFor(interest: ConsoleInterest): void {
    this.#interest = interest;
    this.#watch(this.#output.watchable, interest.output, POLL.OUT, () => this.#events?.onOutput());
    this.#listenForInput();
  }

  read(buffer: NativeBuffer): number {
    if (this.#inputEnded) return 0;
    const count = this.#input.read(buffer);
    if (count === "would-block") return 0;
    if (count === 0) {
      this.#inputEnded = true;
      this.#listenForInput();
    }
    return count;
  }

  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number {
    try {
      const count = this.#output.write(buffer, offset, sizeBytes);
      return count === "would-block" ? 0 : count;
    } catch (error) {
      // Whoever read our output is gone: nobody will ever take these bytes, and a guest must not stall for it.
      if (error instanceof SyscallError && error.errno === "EPIPE") return sizeBytes;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.listenFor({ input: false, output: false });
    this.#input[Symbol.dispose]();
    this.#output[Symbol.dispose]();
  }

  #listenForInput(): void {
    const wanted = this.#interest.input && !this.#inputEnded;
    const { watchable } = this.#input;
    if (watchable !== undefined) {
      this.#watch(watchable, wanted, POLL.IN, () => this.#events?.onInput());
      return;
    }
    // A regular file is always ready, and epoll does not take it.
    this.#cancelInput?.();
    this.#cancelInput = wanted ? this.loop.schedule(0, () => this.#events?.onInput()) : undefined;
  }

  #watch(fd: Fd | undefined, wanted: boolean, interest: number, onReady: () => void): void {
    if (fd === undefined || wanted === this.loop.isWatched(fd)) return;
    if (wanted) this.loop.watch(fd, interest, onReady);
    else this.loop.unwatch(fd);
  }
}
