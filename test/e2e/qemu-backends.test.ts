import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { QemuMachine } from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { startPeerBackend } from "../support/peer-backend.ts";
import { isAlive, killQuietly, processesOf, waitUntil } from "../support/started-machines.ts";
import { startVhu } from "../support/vhu-process.ts";
import { endAllOf, expectDone } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox", "virtiofsd"]);
const IMAGE_BYTES = 32 << 20;
const MEMORY_MIB = 128;

let dir: string;
let file: string;
/** QEMUs that outlive their load. */
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qbe-"));
  file = join(dir, "vm.vhu");
  writeFileSync(join(dir, "disk.raw"), "");
  truncateSync(join(dir, "disk.raw"), IMAGE_BYTES);
  mkdirSync(join(dir, "share"));
  const lines = Array.from({ length: 500 }, (_, at) => `line${at}\n`);
  writeFileSync(join(dir, "share", "input"), lines.join(""));
  mkdirSync(join(dir, "config", "vhu"), { recursive: true });
  // Which virtiofsd is this host's choice.
  const command = JSON.stringify(peers?.virtiofsd.command ?? []);
  writeFileSync(join(dir, "config", "vhu", "programs.toml"), `virtiofsd = ${command}\n`);
});
afterEach(() => endAllOf(dir, started));

const vhu = (...words: string[]): Promise<Ran> =>
  runVhu(["migrate", ...words], {
    env: { XDG_STATE_HOME: join(dir, "state"), XDG_CONFIG_HOME: join(dir, "config") },
  });

/** The disk has a file system of the guest's; it writes to files that it opened before the save, on both. */
const BEFORE = `mke2fs -F /dev/vda >/dev/null && mkdir /disk && mount -t ext2 /dev/vda /disk && mkdir /share \\
  && mount -t virtiofs shared /share || echo MOUNT-FAILED
exec 5>>/disk/log 6>>/share/log 7</share/input
read first <&7; echo "READ $first"
ip link set lo up; ip link set eth0 up || echo NET-FAILED
mkfifo /tmp/in /tmp/out
nc -l -p 7000 -e cat & sleep 0.3
nc 127.0.0.1 7000 </tmp/in >/tmp/out &
exec 8>/tmp/in 9</tmp/out`;
const EACH = `echo "$i" >&5 || echo DISK-FAILED
echo "$i" >&6 || echo SHARE-FAILED
echo "$i" >&8; read back <&9 || echo TCP-FAILED
[ "$back" = "$i" ] || echo "TCP-FAILED $back for $i"
if [ $((i % 10)) = 0 ]; then read line <&7 && echo "READ $line"; sync; fi`;
const ERRORS = /FAILED|I\/O error|EXT4-fs error/;

async function startBackends(name: string) {
  const blk = startVhu([
    "device",
    "run",
    "blk",
    "--socket",
    join(dir, "blk.sock"),
    "--image",
    join(dir, "disk.raw"),
  ]);
  await blk.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  const netSocket = join(dir, "net.sock");
  const net = startVhu([
    ...["device", "run", "net", "--socket", netSocket, "--stream-listen", join(dir, "cable.sock")],
  ]);
  await net.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  const share = join(dir, "share");
  const fs = startPeerBackend({
    dir,
    name: `fs-${name}`,
    command: (socket) => [
      ...peers!.virtiofsd.command,
      ...["--socket-path", socket, "--shared-dir", share, "--sandbox", "none"],
    ],
  });
  await fs.listening();
  return {
    blk,
    fs,
    args: [
      ...[
        "-chardev",
        `socket,id=c0,path=${join(dir, "blk.sock")}`,
        "-device",
        "vhost-user-blk-pci,chardev=c0",
      ],
      ...["-chardev", `socket,id=c1,path=${fs.socketPath}`],
      ...["-device", "vhost-user-fs-pci,chardev=c1,tag=shared"],
      ...["-chardev", `socket,id=c2,path=${netSocket}`, "-netdev", "vhost-user,id=n0,chardev=c2"],
      ...["-device", "virtio-net-pci,netdev=n0,id=net0,mac=52:54:00:00:00:02"],
    ],
    async [Symbol.asyncDispose]() {
      await blk[Symbol.asyncDispose]();
      await net[Symbol.asyncDispose]();
      await fs.kill();
    },
  };
}

test.skipIf(!peers)(
  "a VM on our disk and network and on virtiofsd: saved, everything killed, back with one command; the same life goes on",
  async () => {
    const modules = ["virtio_blk", "virtiofs", "virtio_net"];
    const guest = livingGuest({ dir, modules, before: BEFORE, each: EACH });
    let source: RunningQemu;
    {
      await using backends = await startBackends("a");
      source = await startListening({ dir, name: "vm", guest, memoryMib: MEMORY_MIB, args: backends.args });
      await using _source = source;
      await waitForBeats(source, 15);
      const refused = await vhu("save", `qmp:${source.qmpPath}`, file);
      expect(refused).toMatchObject({ status: 4 });
      expect(refused.stderr).toContain("vhost-user-fs");
      const torn = await vhu("save", "--background", "--disks", "external", `qmp:${source.qmpPath}`, file);
      expect(torn).toMatchObject({ status: 4 });
      expect(torn.stderr).toContain("would tear");
      expectDone(await vhu("save", "--stop", `qmp:${source.qmpPath}`, file));
      await source.waitForExit(BOOT_TIMEOUT_MS);
    }
    const before = source.serial();
    const { nonce, count: last } = beats(source).at(-1)!;
    expect(before).not.toMatch(ERRORS);
    expectRecorded();
    await expectBackendStates();
    await expectRefusals(source);
    const ran = await vhu("load", "--json", file);
    expectDone(ran);
    const summary = JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as {
      pid: number;
      backends: { type: string; chardev: string; pid: number; log: string }[];
    };
    started.push(summary.pid);
    expect(summary.backends.map(({ type, chardev }) => `${chardev} ${type}`).sort()).toEqual([
      "c0 blk",
      "c1 fs",
      "c2 net",
    ]);
    // The guest's console goes to the same file, which the new QEMU began anew.
    await waitUntil(() => beats(source).length >= 25);
    expect(source.serial()).not.toMatch(ERRORS);
    expect(beats(source)[0]).toEqual({ nonce, count: last + 1 });
    // The reads go on at the line after the last one.
    const lines = (output: string) => [...output.matchAll(/READ line(\d+)\n/g)].map(([, at]) => Number(at));
    const all = [...lines(before), ...lines(source.serial())];
    expect(all).toEqual(all.map((_, at) => at));
    expect(lines(source.serial()).length).toBeGreaterThan(1);
    // What the guest wrote to the shared folder has no gap.
    const written = readFileSync(join(dir, "share", "log"), "utf8")
      .trim()
      .split("\n")
      .map(Number);
    expect(written).toEqual(written.map((_, at) => at));
    expect(written.length).toBeGreaterThan(last);
    // They belong to this QEMU: a second load is refused, and they end with it.
    const second = await vhu("load", "--force", file);
    expect(second.status).toBe(1);
    expect(second.stderr).toContain("serves another VM");
    killQuietly(summary.pid);
    await waitUntil(() => summary.backends.every(({ pid }) => !isAlive(pid)));
  },
  3 * BOOT_TIMEOUT_MS,
);

/** The back-ends' own states, in the middle of QEMU's stream. */
async function expectBackendStates(): Promise<void> {
  for (const [device, pattern] of [
    ["vhost-user-fs", /vhost-user-fs-backend.*back-end state: \d+ bytes.*virtiofsd/s],
    ["virtio-net", /virtio-net-device\/backend.*back-end state: \d+ bytes.*vhu net/s],
  ] as const) {
    const inspected = await runVhu(["snapshot", "inspect", "--device", device, file]);
    expectDone(inspected);
    expect(inspected.stdout).toMatch(pattern);
  }
}

/** What the manifest says about the daemons, which nobody was asked about but the kernel and QEMU. */
function expectRecorded(): void {
  using reader = SnapshotReader.open(file);
  const { virtioDevices, backends, disks, sections } = reader.manifest.machine as unknown as QemuMachine & {
    sections: { name: string; sizeBytes: number }[];
  };
  expect(virtioDevices.map(({ type }) => type)).toEqual(["vhost-user-blk", "vhost-user-fs", "virtio-net"]);
  expect(backends!.map(({ chardev, type }) => [chardev, type])).toEqual([
    ["c0", "blk"],
    ["c1", "fs"],
    ["c2", "net"],
  ]);
  expect(backends!.every(({ features }) => features.includes("VIRTIO_F_VERSION_1"))).toBe(true);
  // Who is behind them: what vhu starts itself may be asked, and only that.
  expect(backends!.map((each) => each.version)).toEqual([version, peers!.virtiofsd.version, version]);
  expect(backends![1]!.build).toMatch(/^sha256:[0-9a-f]{64}$/);
  expect(backends![0]!.commandLine).toContain("blk");
  expect(backends![1]!.commandLine!.join(" ")).toContain("virtiofsd");
  expect(disks).toEqual([
    expect.objectContaining({
      device: "c0",
      backend: "c0",
      path: join(dir, "disk.raw"),
      fileBytes: IMAGE_BYTES,
    }),
  ]);
  // The state that virtiofsd gave is inside QEMU's own stream.
  expect(sections.find(({ name }) => name.endsWith("/vhost-user-fs"))!.sizeBytes).toBeGreaterThan(100);
}

/** Loads that fail: each says why, and leaves no process and no socket. */
async function expectRefusals(source: RunningQemu): Promise<void> {
  const inspected = await runVhu(["snapshot", "inspect", file], {
    env: { XDG_CONFIG_HOME: join(dir, "config") },
  });
  expect(inspected.stdout).toMatch(/✓ +back-end c1 +load starts it/);
  const dry = await vhu("load", "--dry-run", file);
  expectDone(dry);
  const commands = dry.stdout.trim().split("\n");
  expect(commands.map((line) => /device run (?:blk|net)|virtiofsd|qemu-system/.exec(line)?.[0])).toEqual([
    "device run blk",
    "virtiofsd",
    "device run net",
    "qemu-system",
  ]);
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1]! ^= 1;
  const damaged = join(dir, "damaged.vhu");
  writeFileSync(damaged, bytes);
  expect((await vhu("load", damaged)).status).toBe(3);
  const foreign = await vhu("load", "--set", "c1.shared-dir=/nowhere", file);
  expect(foreign.status).toBe(5);
  expect(foreign.stderr).toContain("the fs back-end of c1 has ended");
  expect(await vhu("load", "--qemu", "/bin/false", file)).toMatchObject({ status: 5 });
  // After a SIGKILL of vhu nobody is left to end what it had started, so that ends by itself.
  const child = Bun.spawn([...PROGRAM, "migrate", "load", "--json", file], {
    stdout: "pipe",
    stderr: "ignore",
    env: { ...process.env, XDG_STATE_HOME: join(dir, "state"), XDG_CONFIG_HOME: join(dir, "config") },
  });
  await waitUntil(() => processesOf(dir).some((line) => line.includes("device run blk")));
  child.kill("SIGKILL");
  await child.exited;
  await waitUntil(() => processesOf(dir).length === 0);
  for (const name of readdirSync(dir).filter((each) => each.endsWith(".sock"))) rmSync(join(dir, name));
  const systemd = await vhu("load", "--systemd", file);
  if (systemd.status !== 0) expect(systemd).toMatchObject({ status: 4 });
  expect(processesOf(dir)).toEqual([]);
  for (const name of ["blk.sock", "fs-a.sock", "net.sock"]) expect(readdirSync(dir)).not.toContain(name);
  expect(readdirSync(dir)).not.toContain(source.qmpPath);
}
