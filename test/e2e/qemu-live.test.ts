import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NotConvergingError, type PassReport } from "../../migrate/mod.ts";
import { QemuDriver } from "../../migrate/qemu/qemu-driver.ts";
import { type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import { countingSink } from "../support/counting-sink.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  qmp,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const TEST_TIMEOUT_MS = 3 * BOOT_TIMEOUT_MS;
const MEMORY_MIB = 256;

let dir: string;
let file: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qlive-"));
  file = join(dir, "vm.vhu");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const vhu = (...words: string[]): Promise<Ran> =>
  runVhu(words, { env: { XDG_STATE_HOME: join(dir, "state") } });

/** It changes 8 MiB all the time, and says when what it wrote is not what it reads. */
const BUSY = {
  before: `dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null
(while true; do cp /tmp/seed /tmp/a; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b || echo TORN; cmp /tmp/seed /tmp/b || echo TORN; done) &`,
};

/** It writes 8 MiB as fast as it can. */
const WRITING = {
  before: `dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null
(while true; do cp /tmp/seed /tmp/a; done) &`,
};

const boot = (name: string, args: readonly string[] = [], work = BUSY): Promise<RunningQemu> =>
  startListening({ dir, name, guest: livingGuest({ dir, ...work }), memoryMib: MEMORY_MIB, args });

test.skipIf(!peers)(
  "a VM that changes its memory all the time is saved while it runs, and what is loaded is the same life, whole",
  async () => {
    await using source = await boot("vm");
    const { nonce } = await waitForBeats(source, 3);
    const settings = ["query-migrate-capabilities", "query-migrate-parameters"];
    const before = [await qmp(source, settings[0]!), await qmp(source, settings[1]!)];
    const first = beats(source).length;
    const saved = await vhu("migrate", "save", "--live", `qmp:${source.qmpPath}`, file);
    expect(saved).toMatchObject({ status: 0, stderr: "" });
    expect(await runState(source)).toBe("running");
    expect([await qmp(source, settings[0]!), await qmp(source, settings[1]!)]).toEqual(before);
    const last = beats(source).length;
    await waitForBeats(source, 2);
    expect((await vhu("snapshot", "verify", "--deep", file)).status).toBe(0);
    await source.stop();
    const loaded = await vhu("migrate", "load", "--json", file);
    expect(loaded).toMatchObject({ status: 0, stderr: "" });
    try {
      const deadline = performance.now() + BOOT_TIMEOUT_MS;
      while (beats(source).length < 5 && performance.now() < deadline) await Bun.sleep(10);
      const all = beats(source);
      expect(all[0]!.nonce).toBe(nonce);
      expect(all[0]!.count).toBeGreaterThanOrEqual(first);
      expect(all[0]!.count).toBeLessThanOrEqual(last + 1);
      expect(source.serial()).not.toContain("TORN");
    } finally {
      process.kill(JSON.parse(loaded.stdout.trim().split("\n").at(-1)!).pid, "SIGKILL");
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "passes are reported; a copy that is cancelled leaves the VM running; one that leads nowhere says so; throttled, it comes to an end, and the VM is released",
  async () => {
    await using source = await boot("vm", [], WRITING);
    await waitForBeats(source, 3);
    const slow = { bandwidthMaxBytes: 30 << 20 };
    using driver = await QemuDriver.connect(source.qmpPath);
    await expect(driver.startPrecopy(countingSink(), { throttle: "dirty-limit" })).rejects.toThrow("KVM");
    await driver.resume();

    const cancel = new AbortController();
    const onPass = () => cancel.abort(new Error("enough"));
    const cancelled = driver.startPrecopy(countingSink(), { ...slow, onPass, signal: cancel.signal });
    await expect(cancelled).rejects.toThrow("enough");
    await driver.resume();
    await waitForBeats(source, 2);

    const passes: PassReport[] = [];
    const endless = driver.startPrecopy(countingSink(), { ...slow, onPass: (pass) => passes.push(pass) });
    await expect(endless).rejects.toBeInstanceOf(NotConvergingError);
    await driver.resume();
    await waitForBeats(source, 2);
    expect(passes.length).toBeGreaterThanOrEqual(8);
    expect(passes.every(({ passNumber }, at) => at === 0 || passNumber > passes[at - 1]!.passNumber)).toBe(
      true,
    );
    expect(passes.some(({ sentBytes, dirtyBytes }) => sentBytes > 0 && dirtyBytes > 0)).toBe(true);

    const throttles: number[] = [];
    const sink = countingSink();
    await driver.startPrecopy(sink, {
      ...slow,
      throttle: true,
      downtimeMaxMs: 100,
      onPass: ({ throttlePercent }) => throttles.push(throttlePercent!),
    });
    expect(Math.max(...throttles)).toBeGreaterThan(0);
    expect(sink.passes).toBeGreaterThan(1);
    const count = beats(source).length;
    await driver.release();
    expect(driver.resume()).rejects.toThrow("runs elsewhere");
    driver[Symbol.dispose]();
    expect(await runState(source)).toBe("postmigrate");
    expect(beats(source).length).toBe(count);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "save --live --stop ends the VM with its last moment in the file; --throttle alone is no command",
  async () => {
    await using source = await boot("vm");
    await waitForBeats(source, 2);
    expect((await vhu("migrate", "save", "--throttle", `qmp:${source.qmpPath}`, file)).status).toBe(2);
    expect(existsSync(file)).toBe(false);
    const ran = await vhu("migrate", "save", "--live", "--throttle", "--stop", `qmp:${source.qmpPath}`, file);
    expect(ran).toMatchObject({ status: 0, stderr: "" });
    expect(await source.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
    const last = beats(source).at(-1)!.count;
    await using target = await boot("one", ["-incoming", "defer"]);
    expect(await vhu("migrate", "load", file, `qmp:${target.qmpPath}`)).toMatchObject({ status: 0 });
    await waitForBeats(target, 1);
    expect(beats(target)[0]!.count).toBe(last + 1);
    expect(target.serial()).not.toContain("TORN");
  },
  TEST_TIMEOUT_MS,
);
