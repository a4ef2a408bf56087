import { createMemfd, type Fd, Mapping } from "../sys/mod.ts";
import { DirtyLog } from "./dirty-log.ts";
import { PAGE_BYTES } from "./memory-region.ts";
import { PageSet } from "./page-set.ts";

/** What the log is rounded up to: libvhost-user and the kernel count it in words. */
const CHUNK_BYTES = 8;

/**
 * The front-end's side of a dirty log: the shared bitmap in which every back-end, by SET_LOG_BASE, and this process, by
 * `ownLog`, mark the pages that they write to.
 *
 * @example
 * using bitmap = new DirtyBitmap(memoryBytes);
 * for (const frontend of frontends) frontend.startLog(bitmap);
 * guest.dirtyLog = bitmap.ownLog;
 * const changed = bitmap.take();
 */
export class DirtyBitmap implements Disposable {
  /** What SET_LOG_BASE gets. */
  readonly fd: Fd;
  readonly sizeBytes: number;
  /** For the writes of this process: `GuestMemory.dirtyLog`. */
  readonly ownLog: DirtyLog;
  readonly #mapping: Mapping;
  readonly #words: Int32Array;

  /** @param memoryBytes The end of guest-physical memory. */
  constructor(readonly memoryBytes: number) {
    const pages = Math.ceil(memoryBytes / PAGE_BYTES);
    this.sizeBytes = Math.ceil(pages / 8 / CHUNK_BYTES) * CHUNK_BYTES;
    using stack = new DisposableStack();
    this.fd = stack.use(createMemfd("dirty log", Math.ceil(this.sizeBytes / PAGE_BYTES) * PAGE_BYTES));
    this.#mapping = stack.use(Mapping.ofFd(this.fd, { sizeBytes: this.sizeBytes }));
    this.#words = new Int32Array(this.#mapping.window(0, this.sizeBytes));
    this.ownLog = stack.use(DirtyLog.fromFd(this.fd.duplicate(), { sizeBytes: this.sizeBytes, offset: 0 }));
    stack.move();
  }

  /** What was written since the last call; from now on it counts as clean. Nothing is lost that is written meanwhile. */
  take(): PageSet {
    const taken = new PageSet(this.memoryBytes);
    const words = this.#words;
    for (let index = 0; index < taken.words.length; index += 1) {
      // Most are 0, and a load is cheaper than an exchange.
      if (Atomics.load(words, index) !== 0) taken.words[index] = Atomics.exchange(words, index, 0);
    }
    return taken;
  }

  [Symbol.dispose](): void {
    this.ownLog[Symbol.dispose]();
    this.#mapping[Symbol.dispose]();
    this.fd[Symbol.dispose]();
  }
}
