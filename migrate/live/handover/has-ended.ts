import { Deadline, isRunning, type ProcessIdentity } from "../../../src/sys/mod.ts";

/** A process that was killed closes its sockets before it is gone. */
const ENDING_MS = 500;
const POLL_MS = 5;

/** Whether a machine that did not answer has no process any more. False where its process is not known. */
export async function hasEnded(process: ProcessIdentity | undefined): Promise<boolean> {
  if (process === undefined) return false;
  const deadline = new Deadline(ENDING_MS);
  while (isRunning(process)) {
    if (deadline.expired) return false;
    await Bun.sleep(POLL_MS);
  }
  return true;
}
