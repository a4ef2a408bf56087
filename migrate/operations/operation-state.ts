import { SyscallError } from "../../src/errors.ts";
import { hasNoLock, isRunning, O, openFile } from "../../src/sys/mod.ts";
import { placeOf } from "./operation-place.ts";
import type { OperationRecord } from "./operation-record.ts";
import type { OperationsLog } from "./operations-log.ts";

/** "interrupted": its process is gone and nobody has recovered it. "elsewhere": only its own host or container can tell. */
export type OperationState = "running" | "interrupted" | "finished" | "elsewhere";

/** The operation as it is now: it may have ended since `record` was read. @throws FormatError, SyscallError */
export function currentOperation(
  log: OperationsLog,
  record: OperationRecord,
): { readonly record: OperationRecord; readonly state: OperationState } {
  if (record.outcome !== undefined) return { record, state: "finished" };
  if (isAlive(log, record)) return { record, state: "running" };
  // Only now its last word is certain.
  const last = log.read(record.id);
  if (last.outcome !== undefined) return { record: last, state: "finished" };
  const isSeen = ["here", "an earlier boot"].includes(placeOf(last.host));
  return { record: last, state: isSeen ? "interrupted" : "elsewhere" };
}

function isAlive(log: OperationsLog, record: OperationRecord): boolean {
  return (placeOf(record.host) === "here" && isRunning(record.owner)) || isHeld(log, record.id);
}

/** Its process holds a lock, which tells about a process in another container as well. */
function isHeld(log: OperationsLog, id: string): boolean {
  try {
    using fd = openFile(log.pathOf(id), O.RDONLY);
    return !hasNoLock(fd, 0, 1);
  } catch (error) {
    // A file system without locks, or the file is gone: the process identity is all there is.
    if (error instanceof SyscallError) return false;
    throw error;
  }
}
