import type { DeviceQueue, RingRunner } from "../../src/backend/mod.ts";
import type { Logger } from "../../src/logger.ts";
import { FailureLog } from "./failure-log.ts";
import { borrowFiles, type ImageFileNumbers } from "./image-files.ts";
import { InlineRunner } from "./inline-runner.ts";
import { RequestProcessor } from "./request-processor.ts";
import { RequestReader } from "./request-reader.ts";
import { SharedSettings } from "./shared-settings.ts";
import { UringRunner } from "./uring-runner.ts";

/** What a ring Worker is told of a disk. */
export interface BlkRunnerParameters {
  readonly files: ImageFileNumbers;
  /** For the log. */
  readonly path: string;
  readonly readOnly: boolean;
  readonly io: "uring" | "sync";
  readonly settings: SharedArrayBuffer;
}

/** Serves one queue of a disk in a ring Worker. @throws SyscallError where there is to be io_uring and is none */
export function createRunner(queue: DeviceQueue, parameters: unknown, logger: Logger): RingRunner {
  const { files, path, readOnly, io, settings } = parameters as BlkRunnerParameters;
  const log = new FailureLog(path, logger);
  const reader = new RequestReader(readOnly, new SharedSettings(settings), log);
  const borrowed = borrowFiles(files);
  const processor = new RequestProcessor(borrowed, reader);
  return io === "uring"
    ? new UringRunner(queue, borrowed, processor)
    : new InlineRunner(queue, borrowed, processor);
}
