import type { DeviceQueue, RingRunner } from "../../src/backend/mod.ts";
import type { Logger } from "../../src/logger.ts";
import { ChangeMap } from "./change-map.ts";
import { FailureLog } from "./failure-log.ts";
import { borrowFiles, type ImageFileNumbers } from "./image-files.ts";
import { InlineRunner } from "./inline-runner.ts";
import { RequestProcessor } from "./request-processor.ts";
import { RequestReader } from "./request-reader.ts";
import { SharedSettings } from "./shared-settings.ts";
import { UringRunner } from "./uring-runner.ts";

/**
 * "uring": all by io_uring. "sync": one request after the other by preadv and pwritev. "mixed": io_uring, but for what goes
 * faster in line: a read that comes alone and is in the page cache, and writes to the page cache, which io_uring hands to a
 * thread of the kernel where the file system cannot do them without waiting (ext4; 1.5 to 2 times slower, measured).
 */
export type BlkDataPath = "uring" | "sync" | "mixed";

/** What a ring Worker is told of a disk. */
export interface BlkRunnerParameters {
  readonly files: ImageFileNumbers;
  /** For the log. */
  readonly path: string;
  readonly readOnly: boolean;
  readonly io: BlkDataPath;
  readonly settings: SharedArrayBuffer;
  readonly changes: { readonly capacityBytes: number; readonly buffer: SharedArrayBuffer };
}

/** Serves one queue of a disk in a ring Worker. @throws SyscallError where there is to be io_uring and is none */
export function createRunner(queue: DeviceQueue, parameters: unknown, logger: Logger): RingRunner {
  const { files, path, readOnly, io, settings, changes } = parameters as BlkRunnerParameters;
  const log = new FailureLog(path, logger);
  const reader = new RequestReader(
    readOnly,
    new SharedSettings(settings),
    log,
    new ChangeMap(changes.capacityBytes, changes.buffer),
  );
  const borrowed = borrowFiles(files);
  const processor = new RequestProcessor(borrowed, reader);
  return io === "sync"
    ? new InlineRunner(queue, borrowed, processor)
    : new UringRunner(queue, borrowed, processor, io === "mixed");
}
