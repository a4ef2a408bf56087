import { PeerError, StateError } from "../../src/errors.ts";
import { Deadline, signalProcess } from "../../src/sys/mod.ts";
import { requireSeen } from "./operation-place.ts";
import type { OperationRecord } from "./operation-record.ts";
import { currentOperation } from "./operation-state.ts";
import type { OperationsLog } from "./operations-log.ts";

const POLL_MS = 20;

/**
 * Tells the vhu of a running operation to stop, as Ctrl-C does, and waits until it has.
 * @throws StateError when it does not run; PeerError when it has not stopped in time
 */
export async function cancelOperation(
  log: OperationsLog,
  record: OperationRecord,
  options: { readonly timeoutMs: number; readonly signal?: AbortSignal },
): Promise<ReturnType<typeof currentOperation>> {
  const { id, owner } = record;
  requireRunning(log, record);
  requireSeen(record);
  signalProcess(owner, "SIGINT");
  const deadline = new Deadline(options.timeoutMs);
  for (;;) {
    const now = currentOperation(log, log.read(id));
    if (now.state !== "running") return now;
    options.signal?.throwIfAborted();
    if (deadline.expired) {
      throw new PeerError(
        `${id} has not stopped within ${options.timeoutMs} ms; look again with vhu migrate status ${id}`,
      );
    }
    await Bun.sleep(POLL_MS);
  }
}

function requireRunning(log: OperationsLog, record: OperationRecord): void {
  const { state } = currentOperation(log, record);
  if (state === "finished") throw new StateError(`${record.id} has ended: ${record.outcome?.message}`);
  if (state === "interrupted") {
    throw new StateError(`${record.id} was interrupted: vhu migrate recover ${record.id}`);
  }
}
