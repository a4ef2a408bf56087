import { rmSync } from "node:fs";
import { PeerError } from "../../src/errors.ts";
import { Deadline } from "../../src/sys/mod.ts";
import type { DiskOverlay } from "../driver.ts";
import { qmpBlockNodes, qmpJobs } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

const COMMIT_TIMEOUT_MS = 600_000;
const POLL_MS = 20;

export async function hasNode(client: QmpClient, name: string): Promise<boolean> {
  const nodes = await client.request("query-named-block-nodes", {
    answer: qmpBlockNodes,
    arguments: { flat: true },
  });
  return nodes.some((node) => node["node-name"] === name);
}

/** What a VM has written to its overlay goes back into the file beneath it, over which it goes on; the overlay goes away. */
export async function commitOverlay(
  client: QmpClient,
  { path, base, node, baseNode }: DiskOverlay,
): Promise<void> {
  const job = `${node}-undo`;
  await client.request("block-commit", {
    answer: qmpNothing,
    arguments: { "job-id": job, device: node, "base-node": baseNode },
  });
  const deadline = new Deadline(COMMIT_TIMEOUT_MS);
  for (let isCompleting = false; ; ) {
    const jobs = await client.request("query-block-jobs", { answer: qmpJobs });
    const found = jobs.find(({ device }) => device === job);
    if (found === undefined) break;
    if (found.ready && !isCompleting) {
      isCompleting = true;
      await client.request("block-job-complete", { answer: qmpNothing, arguments: { device: job } });
    }
    if (deadline.expired) throw new PeerError(`QEMU has not taken ${path} back into ${base}`);
    await Bun.sleep(POLL_MS);
  }
  rmSync(path, { force: true });
}
