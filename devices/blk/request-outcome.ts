import { errnoName } from "../../src/sys/mod.ts";
import { ACTION, type Action, type BlkRequest, STATUS } from "./request.ts";
import type { RequestReader } from "./request-reader.ts";

const NAMES: Readonly<Record<Action, string>> = {
  [ACTION.answer]: "answer",
  [ACTION.read]: "read",
  [ACTION.write]: "write",
  [ACTION.flush]: "flush",
  [ACTION.discard]: "discard",
  [ACTION.writeZeroes]: "write-zeroes",
};

/** Puts into a request what became of it: `error` is 0 or the negative errno, `doneBytes` what was moved before. */
export function settle(request: BlkRequest, error: number, { log, changes }: RequestReader): void {
  const { action, offset, sizeBytes, doneBytes } = request;
  if (action !== ACTION.read && action !== ACTION.flush) changes.mark(offset, sizeBytes);
  if (error < 0) {
    // Some of it may have arrived before the error, which a migration's dirty log has to know.
    if (action === ACTION.read) request.chain.markWritten(sizeBytes);
    fail(request);
    const details = action === ACTION.flush ? {} : { offset, sizeBytes };
    log.warn(`${NAMES[action]} failed: ${errnoName(-error)}`, details);
    return;
  }
  if (action === ACTION.read) request.writtenBytes = doneBytes;
  if ((action !== ACTION.read && action !== ACTION.write) || doneBytes >= sizeBytes) return;
  fail(request);
  const why = action === ACTION.read ? "the image was cut short" : "write failed: not all bytes were taken";
  log.warn(why, { offset, sizeBytes, done: doneBytes });
}

function fail(request: BlkRequest): void {
  request.status = STATUS.ioError;
}
