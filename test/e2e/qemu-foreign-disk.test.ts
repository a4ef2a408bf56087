import { afterEach, beforeEach, expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { QemuMachine } from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { type Ran, runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { startPeerBackend } from "../support/peer-backend.ts";
import { isAlive, killQuietly, waitUntil } from "../support/started-machines.ts";
import { endAllOf, expectDone, migrateIn } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox", "qemu-storage-daemon"]);

let dir: string;
let file: string;
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qf-"));
  file = join(dir, "vm.vhu");
  writeFileSync(join(dir, "a.raw"), "");
  truncateSync(join(dir, "a.raw"), 16 << 20);
});
afterEach(() => endAllOf(dir, started));

const vhu = (...words: string[]): Promise<Ran> => migrateIn(dir, words);

function machineIn(path: string): QemuMachine {
  using reader = SnapshotReader.open(path);
  return reader.manifest.machine as unknown as QemuMachine;
}

interface Summary {
  readonly pid: number;
  readonly backends: readonly { readonly chardev: string; readonly pid: number }[];
  readonly notes: readonly string[];
}

async function load(...words: string[]): Promise<Summary> {
  const ran = await vhu("load", "--json", ...words, file);
  expectDone(ran);
  const summary = JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as Summary;
  started.push(summary.pid);
  return summary;
}

test.skipIf(!peers)(
  "a disk of qemu-storage-daemon: not kept while the VM goes on, recorded, started again by load, and ended with its QEMU",
  async () => {
    const guest = livingGuest({
      dir,
      modules: ["virtio_blk"],
      each: `echo "$i" | dd of=/dev/vda bs=512 conv=notrunc,fsync 2>/dev/null || echo FAILED
echo 3 >/proc/sys/vm/drop_caches; [ "$(head -n 1 /dev/vda)" = "$i" ] || echo FAILED`,
    });
    const daemon = startPeerBackend({
      ...{ dir, name: "disk" },
      command: (socket) => [
        ...peers!["qemu-storage-daemon"].command,
        ...["--blockdev", `driver=file,node-name=f0,filename=${join(dir, "a.raw")}`],
        ...["--object", "iothread,id=t0", "--export"],
        `type=vhost-user-blk,id=e0,node-name=f0,addr.type=unix,addr.path=${socket},writable=on,iothread=t0`,
      ],
    });
    await using _daemon = daemon;
    await daemon.listening();
    const args = [
      ...["-chardev", `socket,id=c0,path=${daemon.socketPath}`, "-device", "vhost-user-blk-pci,chardev=c0"],
    ];
    await using source = await startListening({ dir, name: "vm", guest, memoryMib: 128, args });
    const { nonce } = await waitForBeats(source, 3);
    for (const disks of [[], ["--disks", "include"], ["--disks", "overlay"]]) {
      const refused = await vhu("save", ...disks, `qmp:${source.qmpPath}`, file);
      expect(refused).toMatchObject({ status: 4 });
      expect(refused.stderr).toContain(join(dir, "a.raw"));
    }
    expectDone(await vhu("save", "--disks", "external", `qmp:${source.qmpPath}`, join(dir, "external.vhu")));
    expect(machineIn(join(dir, "external.vhu")).diskCare).toBe("external");
    await waitForBeats(source, 2);
    expectDone(await vhu("save", "--stop", `qmp:${source.qmpPath}`, file));
    await source.waitForExit(BOOT_TIMEOUT_MS);
    await daemon.kill();
    expect(source.serial()).not.toContain("FAILED");
    const last = beats(source).at(-1)!.count;
    const { backends, disks } = machineIn(file);
    const { version } = peers!["qemu-storage-daemon"];
    expect(backends![0]).toMatchObject({ type: "blk", version, build: expect.stringMatching(/^sha256:/) });
    expect(disks).toEqual([
      expect.objectContaining({ path: join(dir, "a.raw"), backend: "c0", format: "raw", isForeign: true }),
    ]);
    const inspected = await runVhu(["snapshot", "inspect", file]);
    expect(inspected.stdout).toMatch(new RegExp(`qemu-storage-daemon, ${version}, sha256:`));
    expect(inspected.stdout).toMatch(/back-end c0 +load starts it: \S*qemu-storage-daemon\n/);
    await expectOnOtherDisk(last);
    const { pid, backends: run, notes } = await load();
    expect(notes).toEqual([]);
    await waitUntil(() => beats(source).length >= 5);
    expect(beats(source)[0]).toEqual({ nonce, count: last + 1 });
    expect(source.serial()).not.toContain("FAILED");
    expect(run.map(({ chardev }) => chardev)).toEqual(["c0"]);
    expect(isAlive(run[0]!.pid)).toBe(true);
    killQuietly(pid);
    await waitUntil(() => !isAlive(run[0]!.pid));
    const changed = await vhu("load", file);
    expect(changed).toMatchObject({ status: 4 });
    expect(changed.stderr).toContain("a.raw");
  },
  3 * BOOT_TIMEOUT_MS,
);

/** --disk goes into the daemon's block node; --overlay gives it a copy. Neither touches the disk itself. */
async function expectOnOtherDisk(last: number): Promise<void> {
  const other = join(dir, "other.raw");
  copyFileSync(join(dir, "a.raw"), other);
  const original = join(dir, "original.raw");
  copyFileSync(other, original);
  for (const words of [
    ["--disk", `c0=${other}`],
    ["--overlay", join(dir, "two")],
  ]) {
    const folder = join(dir, "two");
    const { pid, backends } = await load(...words, "--runtime-dir", folder);
    const serial = () => readFileSync(join(folder, "serial0"), "latin1");
    await waitUntil(() => (serial().match(/ALIVE/g) ?? []).length >= 3);
    expect(serial()).toContain(` ${last + 1}\r\n`);
    expect(serial()).not.toContain("FAILED");
    killQuietly(pid);
    await waitUntil(() => backends.every((each) => !isAlive(each.pid)));
  }
  expect(readFileSync(join(dir, "a.raw")).equals(readFileSync(original))).toBe(true);
}
