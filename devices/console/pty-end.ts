import { lstatSync, readlinkSync, renameSync, symlinkSync, unlinkSync } from "node:fs";
import { UsageError } from "../../src/errors.ts";
import {
  type EventLoop,
  type NativeBuffer,
  openPty,
  POLL,
  type Pty,
  readSome,
  writeSome,
} from "../../src/sys/mod.ts";
import type { ConsoleEnd, ConsoleEndEvents, ConsoleInterest } from "./console-end.ts";

/**
 * A pseudo-terminal in raw mode, for `screen`, `picocom` and the like. It stays as it is while programs come and go, so it
 * always counts as open; what nobody reads waits, first in the terminal, then in the device, then in the guest.
 */
export class PtyEnd implements ConsoleEnd {
  readonly isOpen = true;
  readonly #pty: Pty;
  readonly #link: string | undefined;

  /**
   * @param link a symbolic link to the terminal, kept for as long as the end lives; an older symbolic link is replaced
   * @throws SyscallError, UsageError when something else is at `link`
   */
  constructor(
    readonly loop: EventLoop,
    link?: string,
  ) {
    using stack = new DisposableStack();
    this.#pty = stack.use(openPty());
    if (link !== undefined) replaceLink(link, this.#pty.path);
    this.#link = link;
    stack.move();
  }

  /** The terminal's path, e.g. "/dev/pts/3". */
  get path(): string {
    return this.#pty.path;
  }

  open(events: ConsoleEndEvents): void {
    this.loop.watch(this.#pty.master, 0, (ready) => {
      if ((ready & POLL.OUT) !== 0) events.onOutput();
      if ((ready & POLL.IN) !== 0) events.onInput();
    });
  }

  listenFor(interest: ConsoleInterest): void {
    const { master } = this.#pty;
    if (!this.loop.isWatched(master)) return;
    this.loop.modify(master, (interest.input ? POLL.IN : 0) | (interest.output ? POLL.OUT : 0));
  }

  read(buffer: NativeBuffer): number {
    return count(readSome(this.#pty.master, buffer));
  }

  write(buffer: NativeBuffer, offset: number, sizeBytes: number): number {
    return count(writeSome(this.#pty.master, buffer, offset, sizeBytes));
  }

  /** What no reader has read would be gone with the master: it is read here, as a reader would. */
  takeBack(buffer: NativeBuffer): number {
    return count(readSome(this.#pty.terminal, buffer));
  }

  [Symbol.dispose](): void {
    this.loop.unwatch(this.#pty.master);
    if (this.#link !== undefined) removeLink(this.#link, this.#pty.path);
    this.#pty[Symbol.dispose]();
  }
}

const count = (moved: number | "would-block") => (moved === "would-block" ? 0 : moved);

/** In one step: whoever opens the link finds the old terminal or the new one. */
function replaceLink(link: string, target: string): void {
  const old = lstatSync(link, { throwIfNoEntry: false });
  if (old !== undefined && !old.isSymbolicLink())
    throw new UsageError(`${link} is there and is no symbolic link`);
  const temporary = `${link}.${process.pid}`;
  symlinkSync(target, temporary);
  renameSync(temporary, link);
}

/** Unless somebody else has made it theirs. */
function removeLink(link: string, target: string): void {
  const now = lstatSync(link, { throwIfNoEntry: false });
  if (now?.isSymbolicLink() && readlinkSync(link) === target) unlinkSync(link);
}
