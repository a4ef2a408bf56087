import { statSync } from "node:fs";
import type { ChangedRange, DeviceControlClient, DeviceStatus } from "../../migrate/control/mod.ts";
import { StateError, UsageError } from "../../src/errors.ts";
import { cloneFile, copyRange, dataRanges, eventLoopTurn, type Fd, truncateFile } from "../../src/sys/mod.ts";

/** Copied between two looks at Ctrl-C and the progress bar. */
const PIECE_BYTES = 16 << 20;
/** What is left may be copied while the guest waits: some 50 ms. */
const LAST_BYTES = 16 << 20;
/** A guest that writes as fast as we copy is not followed for ever. */
const MAX_PASSES = 8;

export interface CopyOptions {
  readonly signal: AbortSignal;
  onProgress(doneBytes: number): void;
}

export interface ImageCopy {
  readonly method: "reflink" | "copy";
  /** Passes that were made while the device ran. */
  readonly passes: number;
  readonly suspendedMs: number;
}

/** Makes an empty target the same as a device's image at one point in time. */
export class ImageCopier {
  #passes = 0;

  constructor(
    readonly client: DeviceControlClient,
    readonly image: Fd,
    readonly target: Fd,
    readonly sizeBytes: number,
    readonly options: CopyOptions,
  ) {}

  /**
   * By sharing its data where the file system can; else what is no hole is copied while the device runs, then what was written
   * meanwhile, until little is left: that, while the device is suspended. Ends the client's connection, so that the device goes on.
   * @throws SyscallError, what `signal` was aborted with
   */
  async run(): Promise<ImageCopy> {
    const { client, image, target, options } = this;
    options.signal.throwIfAborted();
    // Tried while the device runs: that shows whether it can be done.
    const canShare = cloneFile(image, target);
    const left = canShare ? undefined : await this.#copyRunning();
    const startMs = performance.now();
    const { image: now } = await client.status({ command: "suspend", hold: "connection" });
    if (now?.capacityBytes !== this.sizeBytes)
      throw new StateError("the image got another size while it was copied: begin anew");
    const shared = canShare && cloneFile(image, target);
    if (!shared) await this.#copyRest(left);
    client[Symbol.dispose]();
    const suspendedMs = Math.round(performance.now() - startMs);
    return { method: shared ? "reflink" : "copy", passes: this.#passes, suspendedMs };
  }

  /** Returns what is left; undefined: all of it. */
  async #copyRunning(): Promise<readonly ChangedRange[] | undefined> {
    const { client, image, target, sizeBytes } = this;
    if (!(await client.track())) return undefined;
    truncateFile(target, sizeBytes);
    let ranges: readonly ChangedRange[] | undefined = [...dataRanges(image, sizeBytes)];
    for (let before = Infinity; ranges !== undefined; ) {
      const bytes = bytesOf(ranges);
      const isSmall = this.#passes > 0 && (bytes <= LAST_BYTES || bytes >= before);
      if (isSmall || this.#passes >= MAX_PASSES) return ranges;
      await this.#copy(ranges);
      before = bytes;
      this.#passes++;
      ranges = await client.changes();
    }
    return undefined;
  }

  /** Nothing is written any more. */
  async #copyRest(left: readonly ChangedRange[] | undefined): Promise<void> {
    const changed = left === undefined ? undefined : await this.client.changes();
    if (left !== undefined && changed !== undefined) {
      await this.#copy(left);
      await this.#copy(changed);
      return;
    }
    truncateFile(this.target, 0);
    truncateFile(this.target, this.sizeBytes);
    await this.#copy(dataRanges(this.image, this.sizeBytes));
  }

  async #copy(ranges: Iterable<ChangedRange>): Promise<void> {
    for (const range of ranges) {
      const end = range.offset + range.sizeBytes;
      for (let offset = range.offset; offset < end; offset += PIECE_BYTES) {
        copyRange(this.image, this.target, offset, Math.min(PIECE_BYTES, end - offset));
        this.options.onProgress(offset);
        await eventLoopTurn();
        this.options.signal.throwIfAborted();
      }
    }
  }
}

function bytesOf(ranges: readonly ChangedRange[]): number {
  return ranges.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

/** @throws UsageError for a device without an image, and where the target is the image */
export function checkTarget({ type, image }: DeviceStatus, target: string): { readonly sizeBytes: number } {
  if (image === undefined) throw new UsageError(`a ${type} device has no image to copy`);
  const [there, own] = [target, image.path].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (there !== undefined && own !== undefined && there.dev === own.dev && there.ino === own.ino) {
    throw new UsageError(`${target} is the image that the device runs on; give another name`);
  }
  return { sizeBytes: image.capacityBytes };
}
