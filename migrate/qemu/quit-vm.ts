import { PeerError } from "../../src/errors.ts";
import { Deadline, identityOf, isRunning } from "../../src/sys/mod.ts";
import { qemuProcess } from "./qemu-process.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

/** It has to write back what its disks have in memory. */
const END_TIMEOUT_MS = 30_000;
const POLL_MS = 5;

/**
 * Ends QEMU, and waits until it has: only then its monitor, its disks and its back-ends are free for the next one.
 * @throws PeerError
 */
export async function quitVm(client: QmpClient): Promise<void> {
  const pid = qemuProcess(client.socketInode, client.peerPid)?.pid;
  const identity = pid === undefined ? undefined : identityOf(pid);
  await client.request("quit", { answer: qmpNothing });
  if (identity === undefined) return;
  const deadline = new Deadline(END_TIMEOUT_MS);
  while (isRunning(identity)) {
    if (deadline.expired) throw new PeerError(`QEMU (process ${pid}) does not end`);
    await Bun.sleep(POLL_MS);
  }
}
