import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { describeMachine } from "../../migrate/qemu/describe-machine.ts";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { createMemfd, UnixListener } from "../../src/sys/mod.ts";
import { type RunningQemu, requirePeers, startQemu } from "../peers/mod.ts";

const peers = requirePeers(["qemu-system-x86_64"]);
const TIMEOUT_MS = 60_000;

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function start(): RunningQemu {
  const dir = mkdtempSync(join(tmpdir(), "vhu-mon-"));
  folders.push(dir);
  return startQemu({ dir, args: ["-S"], memoryMib: 64 });
}

async function listening(qemu: RunningQemu): Promise<void> {
  while (!existsSync(qemu.qmpPath)) await Bun.sleep(10);
}

test.skipIf(!peers)(
  "a real monitor: version, events, out of band, fds, refusals, one client at a time",
  async () => {
    await using qemu = start();
    await listening(qemu);
    using client = await QmpClient.connect(qemu.qmpPath);
    expect(client.version.text).toMatch(/^\d+\.\d+\.\d+$/);
    expect(client.hasOutOfBand).toBe(true);
    expect(client.peerPid).toBe(qemu.process.pid);
    const status = z.looseObject({ status: z.string(), running: z.boolean() });
    expect(await client.request("query-status", { answer: status })).toMatchObject({ running: false });
    await client.request("cont", { answer: z.object({}) });
    await client.waitForEvent("RESUME", TIMEOUT_MS);
    using memory = createMemfd("a test", 4096);
    const nothing = z.object({});
    await client.request("getfd", { answer: nothing, fd: memory, arguments: { fdname: "vhu-test" } });
    await client.request("closefd", { answer: nothing, arguments: { fdname: "vhu-test" } });
    const oob = client.request("migrate-pause", { answer: nothing, outOfBand: true });
    expect(await oob.catch((error) => error)).toMatchObject({
      command: "migrate-pause",
      errorClass: "GenericError",
    });
    const second = QmpClient.connect(qemu.qmpPath, { greetingTimeoutMs: 300 });
    expect(await second.catch((error) => error.message)).toContain("another client holds this monitor");
    const quit = client.request("quit", { answer: nothing });
    await quit;
    expect(await qemu.waitForExit(TIMEOUT_MS)).toBe(0);
    const after = await client.request("query-status", { answer: status }).catch((error) => error);
    expect(after.reconnect).toBe(true);
  },
  2 * TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a monitor whose socket another process bound, as libvirt does: QEMU is found all the same",
  async () => {
    const dir = mkdtempSync(join(tmpdir(), "vhu-mon-"));
    folders.push(dir);
    const path = join(dir, "passed");
    using listener = UnixListener.listen(path);
    const child = Bun.spawn(
      [
        ...["setpriv", "--pdeathsig", "KILL", "--", ...peers!["qemu-system-x86_64"].command],
        ...["-nodefaults", "-display", "none", "-machine", "q35", "-S", "-m", "64"],
        ...["-chardev", "socket,id=mon,fd=3,server=on,wait=off", "-mon", "chardev=mon,mode=control"],
      ],
      { stdio: ["ignore", "ignore", "inherit", listener.fd.number] },
    );
    try {
      using client = await QmpClient.connect(path, { greetingTimeoutMs: TIMEOUT_MS });
      expect(client.peerPid).toBe(process.pid);
      const machine = await describeMachine(client);
      expect(machine.commandLine).toContain("chardev=mon,mode=control");
      expect(machine.executable).toContain("qemu-system-x86_64");
      expect(machine.workingFolder).toBe(process.cwd());
    } finally {
      child.kill("SIGKILL");
      await child.exited;
    }
  },
  2 * TIMEOUT_MS,
);
