import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import { peersFolder } from "../peers/peer.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { qemusWith } from "../support/processes-with.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);

let dir: string;
let file: string;
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qla-"));
  file = join(dir, "vm.vhu");
});
afterEach(() => {
  // What load started outlives it: that is its purpose.
  for (const pid of started.splice(0)) process.kill(pid, "SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

const vhu = (words: readonly string[], state = "state"): Promise<Ran> =>
  runVhu(["migrate", ...words], { env: { XDG_STATE_HOME: join(dir, state) } });

async function save(qemu: RunningQemu): Promise<void> {
  expect(await vhu(["save", "--stop", `qmp:${qemu.qmpPath}`, file])).toMatchObject({ status: 0, stderr: "" });
  await qemu.waitForExit(BOOT_TIMEOUT_MS);
}

test.skipIf(!peers)(
  "load starts QEMU by itself: the same life, at the same monitor; it outlives vhu",
  async () => {
    await using source = await startListening({
      dir,
      name: "vm",
      guest: livingGuest({ dir }),
      memoryMib: 128,
      args: [],
    });
    const { nonce } = await waitForBeats(source, 3);
    await save(source);
    const last = beats(source).at(-1)!.count;
    const dry = await vhu(["load", "--dry-run", file]);
    expect(dry).toMatchObject({ status: 0, stderr: "" });
    expect(dry.stdout).toContain("-incoming fd:4");
    expect(dry.stdout).toContain("'console=ttyS0 quiet");
    expect(existsSync(source.qmpPath)).toBe(false);
    const ran = await vhu(["load", "--json", file]);
    expect(ran.stderr).toBe("");
    expect(ran.status).toBe(0);
    const summary = JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as {
      pid: number;
      target: string;
      log: string;
    };
    started.push(summary.pid);
    expect(summary.target).toBe(`qmp:${source.qmpPath}`);
    expect(existsSync(summary.log)).toBe(true);
    // The guest's console goes to the same file, which a new QEMU begins anew.
    const deadline = performance.now() + BOOT_TIMEOUT_MS;
    while (beats(source).length < 3 && performance.now() < deadline) await Bun.sleep(10);
    expect(beats(source)[0]).toEqual({ nonce, count: last + 1 });
    // Its memory is what vhu made, and it is saved and loaded again as any other.
    expect(readFileSync(`/proc/${summary.pid}/maps`, "utf8")).toContain("memfd:guest memory");
    expect(await vhu(["save", "--stop", summary.target, file])).toMatchObject({ status: 0, stderr: "" });
    const again = await vhu(["load", "--json", file]);
    expect(again).toMatchObject({ status: 0, stderr: "" });
    started[0] = JSON.parse(again.stdout.trim().split("\n").at(-1)!).pid;
    const nextDeadline = performance.now() + BOOT_TIMEOUT_MS;
    while (beats(source).length < 3 && performance.now() < nextDeadline) await Bun.sleep(10);
    expect(beats(source)[0]).toMatchObject({ nonce });
    expect(beats(source)[0]!.count).toBeGreaterThan(last + 3);
    // A second one would take the monitor away from the first.
    const second = await vhu(["load", file]);
    expect(second).toMatchObject({ status: 2 });
    expect(second.stderr).toContain("another process listens");
  },
  3 * BOOT_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a snapshot from elsewhere starts nothing, unless trusted, and then only with paths below --root; a failed load leaves no QEMU",
  async () => {
    await using source = await startListening({
      dir,
      name: "vm",
      guest: livingGuest({ dir }),
      memoryMib: 128,
      args: [],
    });
    await waitForBeats(source, 2);
    await save(source);
    const socket = ["--socket", join(dir, "new.qmp")];
    const foreign = await vhu(["load", ...socket, file], "another");
    expect(foreign).toMatchObject({ status: 4 });
    expect(foreign.stderr).toContain("no absolute path in an allowed folder");
    const roots = ["--root", dir, "--root", peersFolder()];
    const untrusted = await vhu(["load", ...socket, ...roots, file], "another");
    expect(untrusted).toMatchObject({ status: 4 });
    expect(untrusted.stderr).toContain("--trust");
    const bytes = readFileSync(file);
    bytes[bytes.length >> 1]! ^= 1;
    const damaged = join(dir, "damaged.vhu");
    writeFileSync(damaged, bytes);
    expect(await vhu(["load", ...socket, damaged])).toMatchObject({ status: 3 });
    expect(qemusWith(dir)).toEqual([]);
    // After a SIGKILL of vhu nobody is left to end QEMU, so it ends by itself.
    const words = ["migrate", "load", "--json", ...socket, file];
    const child = Bun.spawn([...PROGRAM, ...words], {
      stdout: "pipe",
      stderr: "ignore",
      env: { ...process.env, XDG_STATE_HOME: join(dir, "state") },
    });
    const progress = child.stdout.getReader();
    expect(new TextDecoder().decode((await progress.read()).value)).toContain('"status"');
    child.kill("SIGKILL");
    await child.exited;
    const deadline = performance.now() + BOOT_TIMEOUT_MS;
    while (qemusWith(dir).length > 0 && performance.now() < deadline) await Bun.sleep(20);
    expect(qemusWith(dir)).toEqual([]);
    expect(await vhu(["load", "--qemu", "/bin/false", ...socket, file])).toMatchObject({ status: 5 });
    expect(await vhu(["load", "--qemu", "/nonexistent", ...socket, file])).toMatchObject({ status: 1 });
    expect(qemusWith(dir)).toEqual([]);
  },
  3 * BOOT_TIMEOUT_MS,
);
