import { StateError } from "../../src/errors.ts";
import type { VmDescription } from "../driver.ts";
import { MigrationSettings } from "./migration-settings.ts";
import { waitForMigrationEnd } from "./migration-state.ts";
import { qmpMigration, qmpStatus } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

const END_TIMEOUT_MS = 30_000;
/** In it QEMU waits for the word of whoever began the migration, for ever. */
const HELD = "pre-switchover";

/** Whether a VM waits in the middle of a migration for somebody to let it go on. */
export async function isHeld(client: QmpClient): Promise<boolean> {
  const { status } = await client.request("query-migrate", { answer: qmpMigration });
  return status === HELD;
}

/** Brings a VM back that a vhu which is no more has left standing still. @throws StateError, PeerError */
export async function reclaimVm(client: QmpClient, to: VmDescription["runState"]): Promise<void> {
  if (await isHeld(client)) await client.request("migrate_cancel", { answer: qmpNothing });
  // A migration whose socket has closed ends by itself, and gives the VM the run state back that it had.
  await waitForMigrationEnd(client, END_TIMEOUT_MS);
  const { status } = await client.request("query-status", { answer: qmpStatus });
  if (to === "running" && status !== "running") await client.request("cont", { answer: qmpNothing });
  // What the other vhu has set for its migration would hold up the next one as well.
  await (await MigrationSettings.apply(client)).restore();
  if (to === "suspended" && status === "running") {
    throw new StateError('the VM runs although it was paused before: send it the QMP command "stop"');
  }
}
