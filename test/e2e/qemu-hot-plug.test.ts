import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { QemuMachine } from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import type { Ran } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  qmp,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { isAlive, waitUntil } from "../support/started-machines.ts";
import { startVhu } from "../support/vhu-process.ts";
import { endAllOf, expectDone, migrateIn } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const MIB = 1 << 20;

let dir: string;
let file: string;
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qp-"));
  file = join(dir, "vm.vhu");
});
afterEach(() => endAllOf(dir, started));

const vhu = (...words: string[]): Promise<Ran> => migrateIn(dir, words);

/** Takes what was plugged in into use, and tells what it has. */
const EACH = `for f in /sys/devices/system/cpu/cpu*/online; do [ "$(cat $f)" = 1 ] || echo 1 >$f; done 2>/dev/null
for f in /sys/devices/system/memory/memory*/state; do [ "$(cat $f)" = online ] || echo online >$f; done 2>/dev/null
echo "HAVE $(grep -c ^processor /proc/cpuinfo) $(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) $(ls /sys/class/net | tr '\\n' ' ')"`;

/** CPUs, MiB of memory, and network cards, as the guest last saw them. */
function seen(qemu: RunningQemu) {
  const [, cpus, kib, cards = ""] = [...qemu.serial().matchAll(/HAVE (\d+) (\d+) (.*)\n/g)].at(-1) ?? [];
  return { cpus: Number(cpus), mib: Number(kib) / 1024, cards: cards.trim().split(" ") };
}

const children = async (qemu: RunningQemu, path: string) =>
  z.array(z.looseObject({ name: z.string() })).parse(await qmp(qemu, "qom-list", { path }));
const deviceIds = async (qemu: RunningQemu) =>
  (await children(qemu, "/machine/peripheral")).map(({ name }) => name);
async function until(isThere: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + BOOT_TIMEOUT_MS;
  while (!(await isThere())) {
    if (performance.now() > deadline) throw new Error("it did not happen");
    await Bun.sleep(100);
  }
}

async function startNet(name: string) {
  const socket = join(dir, `${name}.sock`);
  const cable = join(dir, `${name}.cable`);
  const net = startVhu(["device", "run", "net", "--socket", socket, "--stream-listen", cable]);
  await net.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  return Object.assign(net, { socket });
}

test.skipIf(!peers)(
  "CPU, memory and network card plugged in, and a card of the boot taken out with its back-end: a load has the same, and the same life",
  async () => {
    await using gone = await startNet("gone");
    await using hot = await startNet("hot");
    const ports = ["rp0", "rp1"].flatMap((id, at) => [
      ...["-device", `pcie-root-port,id=${id},chassis=${at + 1}`],
    ]);
    const args = [
      ...["-smp", "1,maxcpus=2", "-m", "slots=2,maxmem=1G", ...ports],
      ...["-chardev", `socket,id=c0,path=${gone.socket}`, "-netdev", "vhost-user,id=n0,chardev=c0"],
      ...["-device", "virtio-net-pci,netdev=n0,id=net0,bus=rp0"],
    ];
    const guest = livingGuest({ dir, modules: ["virtio_net"], each: EACH });
    await using source = await startListening({ dir, name: "vm", guest, memoryMib: 256, args });
    const { nonce } = await waitForBeats(source, 3);
    const before = seen(source);
    expect(before).toMatchObject({ cpus: 1, cards: ["eth0", "lo"] });
    await plugIn(source, hot.socket);
    await takeOut(source);
    await gone.end("SIGTERM");
    await waitUntil(() => seen(source).cpus === 2 && seen(source).mib > before.mib + 100);
    await waitUntil(() => seen(source).cards.length === 2);
    const { cards } = seen(source);
    const check = await vhu("check", "--stop", `qmp:${source.qmpPath}`);
    expect(check.stdout).toMatch(/passed +hot-plugged devices/);
    expectDone(await vhu("save", "--stop", `qmp:${source.qmpPath}`, file));
    await source.waitForExit(BOOT_TIMEOUT_MS);
    const last = beats(source).at(-1)!.count;
    await hot.end("SIGTERM");
    expectRecorded();
    const ran = await vhu("load", "--json", file);
    expectDone(ran);
    const { pid, backends } = JSON.parse(ran.stdout.trim().split("\n").at(-1)!) as {
      pid: number;
      backends: { chardev: string; pid: number }[];
    };
    started.push(pid);
    expect(backends.map(({ chardev }) => chardev)).toEqual(["c1"]);
    await waitUntil(() => beats(source).length >= 3);
    expect(beats(source)[0]).toEqual({ nonce, count: last + 1 });
    expect(seen(source)).toMatchObject({ cpus: 2, cards });
    expect(seen(source).mib).toBeGreaterThan(before.mib + 100);
    expect(await qmp(source, "query-cpus-fast")).toHaveLength(2);
    expect(await qmp(source, "query-memory-size-summary")).toEqual({
      "base-memory": 256 * MIB,
      "plugged-memory": 128 * MIB,
    });
    expect((await deviceIds(source)).sort()).toEqual(["cpu1", "dimm1", "net1", "rp0", "rp1", "type"]);
    // A second save is as good: what was plugged in before is on the command line now.
    expectDone(await vhu("save", "--stop", `qmp:${source.qmpPath}`, file));
    await waitUntil(() => !isAlive(pid));
    using reader = SnapshotReader.open(file);
    expect(reader.manifest.machine).toMatchObject({ added: [], removed: [], removedParts: [] });
  },
  3 * BOOT_TIMEOUT_MS,
);

async function plugIn(source: RunningQemu, socket: string): Promise<void> {
  const cpu = { "socket-id": 0, "core-id": 1, "thread-id": 0 };
  await qmp(source, "device_add", { driver: "qemu64-x86_64-cpu", id: "cpu1", ...cpu });
  const memory = { "qom-type": "memory-backend-memfd", id: "mem1", size: 128 * MIB, share: true };
  await qmp(source, "object-add", memory);
  await qmp(source, "device_add", { driver: "pc-dimm", id: "dimm1", memdev: "mem1" });
  const addr = { type: "unix", data: { path: socket } };
  await qmp(source, "chardev-add", {
    ...{ id: "c1", backend: { type: "socket", data: { addr, server: false } } },
  });
  await qmp(source, "netdev_add", { type: "vhost-user", id: "n1", chardev: "c1" });
  const card = { driver: "virtio-net-pci", id: "net1", netdev: "n1", bus: "rp1", mac: "52:54:00:00:00:77" };
  await qmp(source, "device_add", card);
}

async function takeOut(source: RunningQemu): Promise<void> {
  await qmp(source, "device_del", { id: "net0" });
  // The guest has to let it go, which takes it seconds.
  await until(async () => !(await deviceIds(source)).includes("net0"));
  // Its chardev goes with it.
  await qmp(source, "netdev_del", { id: "n0" });
}

function expectRecorded(): void {
  using reader = SnapshotReader.open(file);
  const machine = reader.manifest.machine as unknown as QemuMachine;
  expect(machine).toMatchObject({ cpuCount: 2, memoryBytes: 384 * MIB, removed: ["net0"], notRebuilt: [] });
  expect(machine.removedParts).toEqual([
    { option: "-chardev", id: "c0" },
    { option: "-netdev", id: "n0" },
  ]);
  const { added = [] } = machine;
  const words = added.map((word, at) => (at % 2 === 1 ? `${added[at - 1]} ${word}` : "")).filter(Boolean);
  expect(words).toEqual(
    expect.arrayContaining([
      expect.stringMatching(
        /^-device qemu64-x86_64-cpu,id=cpu1,(?=.*socket-id=0)(?=.*core-id=1)(?=.*thread-id=0)/,
      ),
      expect.stringMatching(/^-object memory-backend-memfd,id=mem1,.*size=134217728/),
      expect.stringMatching(/^-device pc-dimm,id=dimm1,(?=.*memdev=mem1)(?=.*addr=4294967296)(?=.*slot=0)/),
      "-netdev vhost-user,id=n1,chardev=c1",
      expect.stringMatching(/^-device virtio-net-pci,id=net1,bus=rp1,.*mac=52:54:00:00:00:77/),
    ]),
  );
}

test.skipIf(!peers)(
  "what QEMU does not tell enough of refuses the save by name: a network card on a user netdev, memory bound to a node",
  async () => {
    const args = ["-m", "slots=2,maxmem=1G", "-device", "pcie-root-port,id=rp0,chassis=1"];
    const guest = livingGuest({ dir });
    await using source = await startListening({ dir, name: "vm", guest, memoryMib: 256, args });
    await waitForBeats(source, 1);
    await qmp(source, "netdev_add", { type: "user", id: "n5", hostfwd: [{ str: "tcp::0-:22" }] });
    await qmp(source, "device_add", { driver: "virtio-net-pci", id: "net5", netdev: "n5", bus: "rp0" });
    const bound = { "host-nodes": [0], policy: "bind" };
    await qmp(source, "object-add", {
      ...{ "qom-type": "memory-backend-ram", id: "mem5", size: 128 * MIB, ...bound },
    });
    await qmp(source, "device_add", { driver: "pc-dimm", id: "dimm5", memdev: "mem5" });
    const refused = await vhu("save", `qmp:${source.qmpPath}`, file);
    expect(refused).toMatchObject({ status: 4 });
    expect(refused.stderr).toContain("net5: QEMU does not tell how its netdev n5 (user) was made");
    expect(refused.stderr).toContain("dimm5: its memory mem5 is bound to nodes of the host");
  },
  2 * BOOT_TIMEOUT_MS,
);
