import { PeerError, UsageError } from "../../src/errors.ts";
import { Deadline, isRunning, type ProcessIdentity, signalProcess, UnixListener } from "../../src/sys/mod.ts";
import { removeLeftovers } from "../snapshot/mod.ts";
import { removeImage } from "../storage/mod.ts";
import type { Assessment, RecoveryAction } from "./assessment.ts";
import type { OperationFacts } from "./entry.ts";
import type { Operation } from "./operation.ts";

/** SIGKILL needs no answer; a process in the middle of a disk's I/O takes a moment. */
const END_TIMEOUT_MS = 10_000;
const POLL_MS = 5;

export interface RecoverOptions {
  readonly resumeMachine: (address: string, to: "running" | "suspended") => Promise<void>;
  readonly takeBackOverlays: (
    address: string,
    overlays: NonNullable<OperationFacts["overlays"]>,
  ) => Promise<void>;
  /** Ends what a copy of its disks has left there. */
  readonly dropDiskCopies: (address: string) => Promise<void>;
  /** Called before each action. */
  readonly onAction?: ((text: string) => void) | undefined;
}

/** Does what the assessment says, and ends the operation. When an action fails it stays interrupted, to be tried again. */
export async function recoverOperation(
  operation: Operation,
  { actions, afterwards, staysOpen }: Assessment,
  options: RecoverOptions,
): Promise<void> {
  for (const action of actions) {
    options.onAction?.(describeAction(action));
    if (action.do === "record") operation.phase(action.phase, action.facts);
    else await perform(action, options);
  }
  if (!staysOpen) operation.end({ result: "recovered", message: afterwards });
}

export function describeAction(action: RecoveryAction): string {
  switch (action.do) {
    case "end-process":
      return `end process ${action.process.pid} (${action.role})`;
    case "record":
      return `write down that it is ${action.phase}`;
    case "remove-leftovers":
      return `remove what a killed writer left beside ${action.path}`;
    case "remove-socket":
      return `remove the socket ${action.path}`;
    case "remove-image":
      return `remove the image ${action.path}, which is not whole`;
    case "drop-disk-copies":
      return `end what copied the disks of ${action.address}`;
    case "resume-machine":
      return action.to === "suspended"
        ? `let ${action.address} be paused, as it was before`
        : `let ${action.address} go on`;
    case "take-back-overlays":
      return `take what was written to ${pathsOf(action.overlays)} back into the disks' files`;
  }
}

async function perform(
  action: Exclude<RecoveryAction, { do: "record" }>,
  { resumeMachine, takeBackOverlays, dropDiskCopies }: RecoverOptions,
): Promise<void> {
  switch (action.do) {
    case "end-process":
      return endProcess(action.process);
    case "remove-leftovers":
      return removeLeftovers(action.path);
    case "remove-socket":
      return removeSocket(action.path);
    case "remove-image":
      return removeImage(action);
    case "drop-disk-copies":
      return dropDiskCopies(action.address);
    case "resume-machine":
      return resumeMachine(action.address, action.to ?? "running");
    case "take-back-overlays":
      return takeBackOverlays(action.address, action.overlays);
  }
}

function pathsOf(overlays: readonly { readonly path: string }[]): string {
  return overlays.map(({ path }) => path).join(", ");
}

async function endProcess(identity: ProcessIdentity): Promise<void> {
  const deadline = new Deadline(END_TIMEOUT_MS);
  signalProcess(identity, "SIGKILL");
  while (isRunning(identity)) {
    if (deadline.expired) throw new PeerError(`process ${identity.pid} does not end after SIGKILL`);
    await Bun.sleep(POLL_MS);
  }
}

/** A listener replaces a socket that nobody listens at, and takes its own away; any other is left alone. */
function removeSocket(path: string): void {
  try {
    UnixListener.listen(path)[Symbol.dispose]();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
  }
}
