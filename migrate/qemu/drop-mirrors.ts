import { PeerError, StateError } from "../../src/errors.ts";
import { Deadline } from "../../src/sys/mod.ts";
import { qmpBlockNodes, qmpJobs } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { qmpNothing } from "./qmp-messages.ts";

/** Jobs and nodes with such names are vhu's. */
export const MIRROR_PREFIX = "vhu-mirror-";
const POLL_MS = 20;
const END_TIMEOUT_MS = 30_000;

/**
 * Ends vhu's mirrors in a QEMU and removes their nodes.
 * @param which "left": only what a vhu that is no more has left
 * @throws StateError where another vhu is copying; PeerError
 */
export async function dropMirrors(client: QmpClient, which: "all" | "left"): Promise<void> {
  const jobs = await ownJobs(client);
  if (which === "left" && jobs.length > 0) {
    throw new StateError("another vhu is copying the disks of this VM: wait for it, or end it");
  }
  for (const { device } of jobs) {
    await attempt(() =>
      client.request("block-job-cancel", { answer: qmpNothing, arguments: { device, force: true } }),
    );
  }
  const deadline = new Deadline(END_TIMEOUT_MS);
  while ((await ownJobs(client)).length > 0) {
    if (deadline.expired) throw new PeerError("a mirror of a disk does not end in QEMU");
    await Bun.sleep(POLL_MS);
  }
  for (const name of await ownNodes(client)) {
    await attempt(() =>
      client.request("blockdev-del", { answer: qmpNothing, arguments: { "node-name": name } }),
    );
  }
}

async function ownJobs(client: QmpClient) {
  const jobs = await client.request("query-block-jobs", { answer: qmpJobs });
  return jobs.filter(({ device }) => device.startsWith(MIRROR_PREFIX));
}

async function ownNodes(client: QmpClient): Promise<string[]> {
  const nodes = await client.request("query-named-block-nodes", { answer: qmpBlockNodes });
  return nodes.flatMap(({ "node-name": name }) => (name?.startsWith(MIRROR_PREFIX) ? [name] : []));
}

/** It may be gone by itself meanwhile. */
async function attempt(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
  }
}
