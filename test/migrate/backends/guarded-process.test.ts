import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { GuardedProcess } from "../../../migrate/backends/guarded-process.ts";
import { isAlive, killQuietly, waitUntil } from "../../support/started-machines.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-gp-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const start = () => GuardedProcess.start(["sleep", "1000"], join(dir, "log"));

test("let go, it lives on; disposed of before, it ends", async () => {
  using kept = start();
  kept.release();
  {
    using ended = start();
    expect(ended.hasEnded).toBe(false);
  }
  await Bun.sleep(100);
  expect(isAlive(kept.pid)).toBe(true);
  killQuietly(kept.pid);
});

test("let go with its VMM, it ends when that has ended, and not before", async () => {
  using daemon = start();
  const vmm = Bun.spawn(["sleep", "1000"], { stdio: ["ignore", "ignore", "ignore", daemon.lifeLine.number] });
  daemon.release("with");
  await Bun.sleep(300);
  expect(isAlive(daemon.pid)).toBe(true);
  vmm.kill("SIGKILL");
  await vmm.exited;
  await waitUntil(() => daemon.hasEnded);
});
