import type { NativeBuffer } from "../../src/sys/mod.ts";

/** What a console's end tells its device; the device then reads or writes. */
export interface ConsoleEndEvents {
  /** There may be something to read. */
  onInput(): void;
  /** It may take something again. */
  onOutput(): void;
  /** `isOpen` has changed. Reported at any time. */
  onOpenChange(): void;
}

/** What the device wants to be told of. Nothing while it is suspended. */
export interface ConsoleInterest {
  readonly input: boolean;
  readonly output: boolean;
}

/** The host's end of a console port: where the guest's bytes go and where its input comes from. No call ever blocks. */
export interface ConsoleEnd extends Disposable {
  /** Somebody is there; a guest that negotiated MULTIPORT is told. */
  readonly isOpen: boolean;
  /** Called once, before anything else. No input or output is reported before `listenFor` asks for it. */
  open(events: ConsoleEndEvents): void;
  listenFor(interest: ConsoleInterest): void;
  /** Reads what is there into `buffer`. 0: nothing is there now. */
  read(buffer: NativeBuffer): number;
  /** Takes some of `sizeBytes` bytes from `offset` on. 0: nothing can be taken now. */
  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number;
  /**
   * Gives back, oldest first, what it took and nobody has read, where that would be lost with this process. 0: nothing
   * (more). Called for a snapshot.
   */
  takeBack?(buffer: NativeBuffer): number;
}
