import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { QemuMachine } from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  qmp,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { waitUntil } from "../support/started-machines.ts";
import { startVhu } from "../support/vhu-process.ts";
import { endAllOf, expectDone, migrateIn } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "qemu-img", "guest-kernel", "busybox"]);
const TEST_TIMEOUT_MS = 4 * BOOT_TIMEOUT_MS;
const IMAGE_BYTES = 16 << 20;

let dir: string;
let file: string;
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qd-"));
  file = join(dir, "vm.vhu");
  for (const name of ["a.raw", "b.raw", "c.raw"]) {
    writeFileSync(join(dir, name), "");
    truncateSync(join(dir, name), IMAGE_BYTES);
  }
});
afterEach(() => endAllOf(dir, started));

const vhu = (...words: string[]): Promise<Ran> => migrateIn(dir, words);

/** Each count is written to each disk, and read back from it, past the page cache. */
function guestWith(disks: readonly string[]) {
  const each = (line: (disk: string) => string) => disks.map(line).join("\n");
  return livingGuest({
    dir,
    modules: ["virtio_blk"],
    before: each(
      (disk) =>
        `mke2fs -F /dev/${disk} >/dev/null && mkdir /${disk} && mount -t ext2 /dev/${disk} /${disk} || echo FAILED`,
    ),
    each: `${each((disk) => `echo "$i" >>/${disk}/log`)}
sync; echo 3 >/proc/sys/vm/drop_caches
${each((disk) => `[ "$(tail -n 1 /${disk}/log)" = "$i" ] && [ "$(wc -l </${disk}/log)" = "$((i + 1))" ] || echo FAILED ${disk} $i`)}`,
  });
}

const ERRORS = /FAILED|I\/O error|EXT[24]-fs error/;
const OWN_DISK = (name: string) => [
  ...["-blockdev", `driver=raw,node-name=${name},file.driver=file,file.filename=${join(dir, `${name}.raw`)}`],
  ...["-device", `virtio-blk-pci,id=disk-${name},drive=${name}`],
];
const DRIVE = (name: string) => [
  "-drive",
  `if=virtio,format=raw,id=${name},file=${join(dir, `${name}.raw`)}`,
];

async function boot(disks: readonly string[], args: readonly string[]): Promise<RunningQemu> {
  const qemu = await startListening({ dir, name: "vm", guest: guestWith(disks), memoryMib: 128, args });
  await waitForBeats(qemu, 5);
  expect(qemu.serial()).not.toMatch(ERRORS);
  return qemu;
}

function diskRecords(): QemuMachine["disks"] {
  using reader = SnapshotReader.open(file);
  return (reader.manifest.machine as unknown as QemuMachine).disks;
}

interface Summary {
  readonly pid: number;
  readonly notes: string[];
}

async function load(...words: string[]): Promise<Summary> {
  const ran = await vhu("load", "--json", ...words, file);
  expectDone(ran);
  const summary = JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as Summary;
  started.push(summary.pid);
  return summary;
}

/** A loaded machine's console, in another folder than the first one's. */
function countsIn(path: string): { nonce: string; count: number }[] {
  if (!existsSync(path)) return [];
  const text = readFileSync(path, "latin1").replaceAll("\r", "");
  expect(text).not.toMatch(ERRORS);
  return [...text.matchAll(/ALIVE (\S+) (\d+)\n/g)].map(([, nonce, count]) => ({
    nonce: nonce!,
    count: Number(count),
  }));
}

const topFiles = async (qemu: RunningQemu) =>
  z
    .array(z.looseObject({ inserted: z.looseObject({ file: z.string() }) }))
    .parse(await qmp(qemu, "query-block"))
    .map(({ inserted }) => inserted.file);

const deviceIds = async (qemu: RunningQemu) =>
  z
    .array(z.looseObject({ name: z.string() }))
    .parse(await qmp(qemu, "qom-list", { path: "/machine/peripheral" }))
    .map(({ name }) => name);

test.skipIf(!peers)(
  "--disks overlay: the VM goes on over overlays, twice; loads leave the frozen files alone, and go on from the save",
  async () => {
    await using source = await boot(["vda", "vdb"], [...DRIVE("a"), ...OWN_DISK("b")]);
    const { nonce } = beats(source)[0]!;
    const plain = await vhu("save", `qmp:${source.qmpPath}`, file);
    expect(plain).toMatchObject({ status: 4 });
    expect(plain.stderr).toContain("--disks");
    const live = ["--live", "--disks", "overlay"];
    expectDone(await vhu("save", ...live, `qmp:${source.qmpPath}`, join(dir, "first.vhu")));
    await waitForBeats(source, 2);
    const atSave = beats(source).length;
    expectDone(await vhu("save", "--disks", "overlay", `qmp:${source.qmpPath}`, file));
    expect(await runState(source)).toBe("running");
    await waitForBeats(source, 5);
    expect(source.serial()).not.toMatch(ERRORS);
    const disks = diskRecords();
    expect(disks.map(({ frozen }) => frozen)).toEqual([true, true]);
    // The second save froze the overlays of the first.
    expect(
      disks.every(({ path, format }) => /\.vhu-[0-9a-f]{8}\.qcow2$/.test(path) && format === "qcow2"),
    ).toBe(true);
    expect(await topFiles(source)).toEqual(disks.map(({ wentOnAt }) => String(wentOnAt)));
    const frozen = disks.map(({ path }) => statSync(path).mtimeMs);
    await source.stop();
    for (const name of ["one", "two"]) {
      const folder = join(dir, name);
      await load("--overlay", folder, "--runtime-dir", folder);
      const serial = join(folder, "serial0");
      await waitUntil(() => countsIn(serial).length >= 5);
      const [first] = countsIn(serial);
      expect(first!.nonce).toBe(nonce);
      expect(first!.count).toBeGreaterThanOrEqual(atSave);
      expect(first!.count).toBeLessThan(beats(source).at(-1)!.count);
    }
    // Both run at the same time, each over overlays of its own.
    expect(disks.map(({ path }) => statSync(path).mtimeMs)).toEqual(frozen);
    expect(readdirSync(join(dir, "one")).filter((each) => each.endsWith(".qcow2")).length).toBe(2);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "--disks include: copies beside the snapshot, of QEMU's disk and of our back-end's; loaded twice at once",
  async () => {
    const control = join(dir, "blk.ctl");
    await using blk = startVhu([
      ...[
        "device",
        "run",
        "blk",
        "--socket",
        join(dir, "blk.sock"),
        "--image",
        join(dir, "b.raw"),
        "--control",
        control,
      ],
    ]);
    await blk.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
    const backend = [
      "-chardev",
      `socket,id=c0,path=${join(dir, "blk.sock")}`,
      "-device",
      "vhost-user-blk-pci,chardev=c0",
    ];
    await using source = await boot(["vda", "vdb"], [...OWN_DISK("a"), ...backend]);
    const toPipe = await vhu("save", "--disks", "include", `qmp:${source.qmpPath}`, "-");
    expect(toPipe).toMatchObject({ status: 4 });
    expect(toPipe.stderr).toContain("beside the snapshot");
    expectDone(await vhu("save", "--disks", "include", `qmp:${source.qmpPath}`, file));
    const copies = readdirSync(`${file}.disks`);
    expect(copies.map((name) => name.slice(9)).sort()).toEqual(["a", "c0"]);
    await waitForBeats(source, 5);
    expect(source.serial()).not.toMatch(ERRORS);
    // A save under the same name replaces the copies as well.
    expectDone(await vhu("save", "--disks", "include", `qmp:${source.qmpPath}`, file));
    const kept = readdirSync(`${file}.disks`);
    expect(kept.length).toBe(2);
    expect(kept).not.toContain(copies[0]!);
    const secret = join(dir, "passphrase");
    writeFileSync(secret, "hush\n", { mode: 0o600 });
    const sealed = ["--passphrase-file", secret];
    const sealedFile = join(dir, "sealed.vhu");
    expectDone(await vhu("save", "--disks", "include", ...sealed, `qmp:${source.qmpPath}`, sealedFile));
    const { nonce, count } = await waitForBeats(source, 5);
    await source.stop();
    await blk.end("SIGKILL");
    await expectSealed(sealedFile, sealed, nonce);
    const before = kept.map((name) => statSync(join(`${file}.disks`, name)).mtimeMs);
    for (const name of ["one", "two"]) {
      const folder = join(dir, name);
      const { notes } = await load("--overlay", folder, "--runtime-dir", folder);
      expect(notes.join()).toContain("no vmgenid");
      const serial = join(folder, "serial0");
      await waitUntil(() => countsIn(serial).length >= 5);
      expect(countsIn(serial)[0]!.nonce).toBe(nonce);
      expect(countsIn(serial)[0]!.count).toBeLessThan(count);
    }
    expect(kept.map((name) => statSync(join(`${file}.disks`, name)).mtimeMs)).toEqual(before);
    // One bit, and the same size and time.
    const copy = join(`${file}.disks`, kept[0]!);
    expect(await runVhu(["snapshot", "verify", "--deep", file])).toMatchObject({ status: 0 });
    flip(copy);
    for (const words of [["--dry-run"], ["--runtime-dir", join(dir, "three")]]) {
      const changed = await vhu("load", ...words, file);
      expect(changed).toMatchObject({ status: 4 });
      expect(changed.stderr).toContain(kept[0]!);
    }
    const verified = await runVhu(["snapshot", "verify", "--deep", file]);
    expect(verified).toMatchObject({ status: 3 });
    expect(verified.stdout).toContain("is not to be used");
    rmSync(copy);
    expect(await vhu("load", "--dry-run", file)).toMatchObject({ status: 4 });
  },
  TEST_TIMEOUT_MS,
);

function flip(path: string): void {
  const { atime, mtime, size } = statSync(path);
  const bytes = readFileSync(path);
  bytes[size >> 1]! ^= 1;
  writeFileSync(path, bytes);
  utimesSync(path, atime, mtime);
}

/** The copies of an encrypted save are encrypted, and decrypted for the VM into files of its own. */
async function expectSealed(sealedFile: string, key: readonly string[], nonce: string): Promise<void> {
  const names = readdirSync(`${sealedFile}.disks`);
  expect(names.length).toBe(2);
  const ext2Magic = Buffer.from([0x53, 0xef]);
  for (const name of names) {
    const head = readFileSync(join(`${sealedFile}.disks`, name)).subarray(0, 4096);
    expect(head.subarray(0x438, 0x43a).equals(ext2Magic)).toBe(false);
  }
  const inspected = await runVhu(["snapshot", "inspect", "--json", ...key, sealedFile]);
  expect(inspected.stdout).toContain("(not shown)");
  const folder = join(dir, "sealed");
  const ran = await vhu("load", "--json", ...key, "--overlay", folder, "--runtime-dir", folder, sealedFile);
  expectDone(ran);
  started.push((JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as Summary).pid);
  const serial = join(folder, "serial0");
  await waitUntil(() => countsIn(serial).length >= 5);
  expect(countsIn(serial)[0]!.nonce).toBe(nonce);
  flip(join(`${sealedFile}.disks`, names[0]!));
  const changed = await vhu("load", ...key, "--runtime-dir", join(dir, "four"), sealedFile);
  expect(changed).toMatchObject({ status: 3 });
  expect(changed.stderr).toContain(names[0]!);
  expect(readdirSync(dir).filter((name) => name.startsWith("a.raw.vhu-"))).toEqual([]);
}

test.skipIf(!peers)(
  "a save that fails after the disks were frozen puts them together again; the VM has missed nothing",
  async () => {
    await using source = await boot(["vda"], OWN_DISK("a"));
    const pipe = Bun.spawn(
      [...PROGRAM, "migrate", "save", "--disks", "overlay", `qmp:${source.qmpPath}`, "-"],
      {
        stdout: "pipe",
        stderr: "pipe",
        env: { ...process.env, XDG_STATE_HOME: join(dir, "state") },
      },
    );
    const reader = pipe.stdout.getReader();
    // The disks are frozen when nearly all of the memory has been taken; then nobody takes the rest.
    const isFrozen = () => readdirSync(dir).some((name) => name.endsWith(".qcow2"));
    while (!isFrozen()) expect(await reader.read()).toMatchObject({ done: false });
    await reader.cancel();
    expect(await pipe.exited).not.toBe(0);
    await waitForBeats(source, 3);
    expect(source.serial()).not.toMatch(ERRORS);
    expect(await topFiles(source)).toEqual([join(dir, "a.raw")]);
    expect(readdirSync(dir).filter((name) => name.endsWith(".qcow2"))).toEqual([]);
    expect(await runState(source)).toBe("running");
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "what was plugged in is there after a load, what was taken out is not; what cannot be made again refuses the save by name",
  async () => {
    const ports = ["rp1", "rp2", "rp3"].flatMap((id, at) => [
      "-device",
      `pcie-root-port,id=${id},chassis=${at + 1}`,
    ]);
    const removed = ["-device", "virtio-rng-pci,id=rng0,bus=rp3"];
    await using source = await boot(["vda"], [...OWN_DISK("a"), ...ports, ...removed]);
    const { nonce } = beats(source)[0]!;
    await qmp(source, "blockdev-add", {
      ...{ driver: "raw", "node-name": "hot", file: { driver: "file", filename: join(dir, "b.raw") } },
    });
    await qmp(source, "device_add", {
      driver: "virtio-blk-pci",
      id: "hot0",
      bus: "rp1",
      drive: "hot",
      serial: "HOT",
    });
    await qmp(source, "device_add", { driver: "e1000e", id: "nic0", bus: "rp2" });
    const refused = await vhu("save", "--stop", `qmp:${source.qmpPath}`, file);
    expect(refused).toMatchObject({ status: 4 });
    expect(refused.stderr).toContain("e1000e nic0");
    for (const id of ["nic0", "rng0"]) await qmp(source, "device_del", { id });
    // The guest has to let them go, which takes it seconds.
    while ((await deviceIds(source)).some((id) => id === "nic0" || id === "rng0")) await Bun.sleep(100);
    expectDone(await vhu("save", "--stop", `qmp:${source.qmpPath}`, file));
    const last = beats(source).at(-1)!.count;
    await source.waitForExit(BOOT_TIMEOUT_MS);
    await load();
    await waitUntil(() => beats(source).length >= 3);
    expect(beats(source)[0]).toEqual({ nonce, count: last + 1 });
    const ids = await deviceIds(source);
    expect(ids).toContain("hot0");
    expect(ids).not.toContain("rng0");
    expect(await topFiles(source)).toContain(join(dir, "b.raw"));
  },
  TEST_TIMEOUT_MS,
);
