/** A temporary folder with all that a test of real VMs makes: files, sockets, its own log of operations. */
import { expect } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { type Ran, runVhu } from "../bin/run-vhu.ts";
import { killQuietly, processesOf, waitUntil } from "./started-machines.ts";

/** `vhu migrate`, as a user whose state is in the folder. */
export function migrateIn(dir: string, words: readonly string[]): Promise<Ran> {
  return runVhu(["migrate", ...words], { env: { XDG_STATE_HOME: join(dir, "state") } });
}

export function expectDone(ran: Ran): void {
  expect(ran.stderr).toBe("");
  expect(ran.status).toBe(0);
}

/** Ends what was started, waits until no process names the folder any more, and removes it. */
export async function endAllOf(dir: string, started: number[]): Promise<void> {
  for (const pid of started.splice(0)) killQuietly(pid);
  await waitUntil(() => processesOf(dir).length === 0);
  rmSync(dir, { recursive: true, force: true });
}
