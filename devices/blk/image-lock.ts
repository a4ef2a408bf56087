import { StateError } from "../../src/errors.ts";
import { Deadline, type Fd, hasNoLock, lockBytes } from "../../src/sys/mod.ts";

/** QEMU marks at byte 100 + n that it uses permission n of an image, at 200 + n that others must not; writing is 1. */
const WRITES = 101;
const NO_OTHER_WRITES = 201;

/** A killed process's io_uring is taken down, and gives up the image with its locks, shortly after the process is gone. */
const GRACE_MS = 500;
const RETRY_MS = 10;

/**
 * The lock of an image, by OFD locks: one writer, or any number of readers, QEMU's and its tools' included. It is held from
 * the start of the first ring until the device is suspended, so that two hosts which share a disk never both write.
 */
export class ImageLock {
  #isHeld = false;

  constructor(
    readonly fd: Fd,
    readonly path: string,
    readonly readOnly: boolean,
  ) {}

  /** @throws StateError when somebody else has the image, SyscallError where the file system has no locks */
  take(): void {
    if (this.#isHeld) return;
    const deadline = new Deadline(GRACE_MS);
    for (;;) {
      this.#isHeld = this.readOnly ? this.#takeForReading() : this.#takeForWriting();
      if (this.#isHeld) return;
      this.#release();
      if (deadline.expired) break;
      Bun.sleepSync(RETRY_MS);
    }
    const by = this.readOnly ? "is written to by another program" : "is in use by another program";
    throw new StateError(`the image ${this.path} ${by}; end that, or share the image with --no-lock`, {
      details: { path: this.path, readOnly: this.readOnly },
    });
  }

  giveUp(): void {
    if (this.#isHeld) this.#release();
    this.#isHeld = false;
  }

  #takeForWriting(): boolean {
    return lockBytes(this.fd, "write", WRITES, 1) && lockBytes(this.fd, "write", NO_OTHER_WRITES, 1);
  }

  #takeForReading(): boolean {
    return lockBytes(this.fd, "read", NO_OTHER_WRITES, 1) && hasNoLock(this.fd, WRITES, 1);
  }

  #release(): void {
    lockBytes(this.fd, "none", WRITES, 1);
    lockBytes(this.fd, "none", NO_OTHER_WRITES, 1);
  }
}
