import type { NativeBuffer } from "../../src/sys/mod.ts";
import type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";

/** A console end in memory, for a program that is itself what the guest talks to, and for tests. */
export class BufferEnd implements ConsoleEnd {
  #events: ConsoleEndEvents | undefined;
  #isOpen = true;
  #interest: ConsoleInterest = { input: false, output: false };
  #input: number[] = [];
  #output: number[] = [];
  #roomBytes = Infinity;

  open(events: ConsoleEndEvents): void {
    this.#events = events;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** As a peer that comes or goes. */
  setOpen(isOpen: boolean): void {
    this.#isOpen = isOpen;
    this.#events?.onOpenChange();
  }

  listenFor(interest: ConsoleInterest): void {
    this.#interest = interest;
  }

  /** Gives the guest something to read. */
  send(text: string | Uint8Array): void {
    for (const byte of typeof text === "string" ? new TextEncoder().encode(text) : text)
      this.#input.push(byte);
    if (this.#interest.input) this.#events?.onInput();
  }

  /** What the device has not read yet. */
  get unreadBytes(): number {
    return this.#input.length;
  }

  /** Takes those bytes back: they were never sent. */
  takeUnread(): Uint8Array {
    return Uint8Array.from(this.#input.splice(0));
  }

  /** Everything the guest has written since the last call. */
  takeOutput(): Uint8Array {
    return Uint8Array.from(this.#output.splice(0));
  }

  /** Takes no more than `sizeBytes` from now on, as a peer that does not read would. */
  limitTo(sizeBytes: number): void {
    this.#roomBytes = sizeBytes;
    if (sizeBytes > 0 && this.#interest.output) this.#events?.onOutput();
  }

  read(buffer: NativeBuffer): number {
    const bytes = this.#input.splice(0, buffer.sizeBytes);
    buffer.bytes.set(bytes);
    return bytes.length;
  }

  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number {
    const count = Math.min(sizeBytes, this.#roomBytes);
    for (let i = 0; i < count; i++) this.#output.push(buffer.bytes[offset + i]!);
    this.#roomBytes -= count;
    return count;
  }

  [Symbol.dispose](): void {
    this.#events = undefined;
  }
}
