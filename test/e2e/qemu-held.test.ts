import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { OperationsLog } from "../../migrate/mod.ts";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import { interruptedOperation } from "../support/interrupted-operation.ts";
import {
  BOOT_TIMEOUT_MS,
  livingGuest,
  qmp,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";

const peers = requirePeers(["qemu-system-x86_64", "qemu-img", "guest-kernel", "busybox"]);
const SLOW_NS = 300_000_000;

let dir: string;
let file: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qh-"));
  file = join(dir, "vm.vhu");
  writeFileSync(join(dir, "a.raw"), "");
  truncateSync(join(dir, "a.raw"), 16 << 20);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const env = () => ({ XDG_STATE_HOME: join(dir, "state") });
const vhu = (...words: string[]): Promise<Ran> => runVhu(["migrate", ...words], { env: env() });
const overlays = () => readdirSync(dir).filter((name) => name.endsWith(".qcow2"));
const address = (qemu: RunningQemu) => `qmp:${qemu.qmpPath}`;

function boot(): Promise<RunningQemu> {
  const guest = livingGuest({
    dir,
    modules: ["virtio_blk"],
    before:
      "while true; do dd if=/dev/vdb of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null || echo FAILED; done &",
    each: `echo "$i" | dd of=/dev/vda bs=512 seek=$((i % 1000)) conv=notrunc,fsync 2>/dev/null || echo FAILED`,
  });
  return startListening({
    ...{ dir, name: "vm", guest, memoryMib: 128 },
    args: [
      ...["-blockdev", `driver=raw,node-name=a,file.driver=file,file.filename=${join(dir, "a.raw")}`],
      ...["-blockdev", `driver=null-co,node-name=n,read-only=on,latency-ns=${SLOW_NS},size=1048576`],
      ...["-device", "virtio-blk-pci,drive=a", "-device", "virtio-blk-pci,drive=n"],
      ...["-qmp", `unix:${join(dir, "second")},server=on,wait=off`],
    ],
  });
}

function startSave() {
  return Bun.spawn(
    [...PROGRAM, "migrate", "save", "--disks", "overlay", `qmp:${join(dir, "vm.qmp")}`, file],
    {
      stdio: ["ignore", "ignore", "ignore"],
      env: { ...process.env, ...env() },
    },
  );
}

const isPreSwitchover = (data: unknown) => JSON.stringify(data).includes("pre-switchover");

/** SIGKILL of a vhu that has begun the migration and never hears that the VM waits for it. */
async function killBeforeFreeze(): Promise<void> {
  using client = await QmpClient.connect(join(dir, "second"));
  const save = startSave();
  // Until QEMU has heard from its slow disk, it does not say that it waits.
  await client.waitForEvent("STOP", BOOT_TIMEOUT_MS);
  save.kill("SIGSTOP");
  await client.waitForEvent("MIGRATION", BOOT_TIMEOUT_MS, isPreSwitchover);
  save.kill("SIGKILL");
  await save.exited;
}

/** The same of a paused VM, which does not wait for its disks. */
async function beginAndLeave(qemu: RunningQemu): Promise<void> {
  using client = await QmpClient.connect(join(dir, "second"));
  const capabilities = ["return-path", "events", "pause-before-switchover"].map((capability) => ({
    ...{ capability, state: true },
  }));
  const request = (name: string, args: Record<string, unknown>) =>
    client.request(name, { answer: z.unknown(), arguments: args });
  await request("migrate-set-capabilities", { capabilities });
  await request("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
  const path = join(dir, "stream");
  using _listener = Bun.listen({ unix: path, socket: { data() {} } });
  await request("migrate", { uri: `unix:${path}` });
  await client.waitForEvent("MIGRATION", BOOT_TIMEOUT_MS, isPreSwitchover);
  const start = { kind: "save", source: address(qemu), target: file } as const;
  interruptedOperation(new OperationsLog(join(dir, "state", "vhu", "operations")), start, (operation) =>
    operation.phase("saving", { earlierRunState: "suspended" }),
  );
}

test.skipIf(!peers)(
  "vhu is killed while QEMU waits for it in pre-switchover: status says so, recover brings the VM back as it was",
  async () => {
    await using source = await boot();
    await waitForBeats(source, 3);
    const settings = ["query-migrate-capabilities", "query-migrate-parameters"] as const;
    const before = [await qmp(source, settings[0]), await qmp(source, settings[1])];
    for (const was of ["running", "paused"] as const) {
      if (was === "paused") await qmp(source, "stop");
      await (was === "running" ? killBeforeFreeze() : beginAndLeave(source));
      expect(await runState(source)).toBe("finish-migrate");
      const status = await vhu("status");
      expect(status.status).toBe(1);
      expect(status.stdout.trim().split("\n").length).toBe(1);
      expect(status.stdout).toMatch(
        new RegExp(`stands still in the middle of the save and was ${was} before.*vhu migrate recover`),
      );
      const recovered = await vhu("recover");
      expect(recovered).toMatchObject({ status: 0 });
      expect(await runState(source)).toBe(was);
      expect([await qmp(source, settings[0]), await qmp(source, settings[1])]).toEqual(before);
      if (was === "running") await waitForBeats(source, 3);
      expect((await vhu("status")).status).toBe(0);
      expect(overlays()).toEqual([]);
    }
    // As if nothing had been.
    await qmp(source, "cont");
    expect((await vhu("save", "--disks", "overlay", address(source), file)).status).toBe(0);
    await waitForBeats(source, 3);
    expect(source.serial()).not.toContain("FAILED");
  },
  3 * BOOT_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "vhu is killed after the disks were frozen: status names the overlays, recover takes them back; a VM that has ended is said",
  async () => {
    await using source = await boot();
    await waitForBeats(source, 3);
    for (const end of ["recover", "gone"] as const) {
      const save = startSave();
      while (overlays().length === 0) await Bun.sleep(1);
      save.kill("SIGKILL");
      await save.exited;
      expect(existsSync(file)).toBe(false);
      if (end === "gone") await source.stop();
      const status = await vhu("status");
      expect(status.status).toBe(1);
      expect(status.stdout).toContain(overlays()[0]!);
      expect(status.stdout).toContain(end === "gone" ? "start it with these" : "takes the overlays back");
      expect(await vhu("recover")).toMatchObject({ status: 0 });
      expect(overlays().length).toBe(end === "gone" ? 1 : 0);
      if (end === "gone") continue;
      await waitForBeats(source, 3);
      expect(source.serial()).not.toContain("FAILED");
    }
  },
  3 * BOOT_TIMEOUT_MS,
);
