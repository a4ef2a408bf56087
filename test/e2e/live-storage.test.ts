import { expect, test } from "bun:test";
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { hopOnce } from "../support/live-hops.ts";
import { type LiveHost, LiveHosts } from "../support/live-hosts.ts";
import { LiveMachine } from "../support/live-machine.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import type { VhuProcess } from "../support/vhu-process.ts";

const possible = NetNamespace.isPossible;
const TEST_TIMEOUT_MS = 180_000;
const DISK_MIB = 256;
const WAIT_MS = 30_000;
const IMAGES = ["m.img", "m-data.img"];

const diskFiles = (host: LiveHost) =>
  IMAGES.map((name) => host.path(name)).filter((path) => existsSync(path));

/** Until some of the second disk is there. */
async function untilCopying(host: LiveHost, sender: VhuProcess): Promise<void> {
  const path = host.path("m-data.img");
  const deadline = performance.now() + WAIT_MS;
  while ((statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) < 2048) {
    if (performance.now() > deadline || sender.process.exitCode !== null) {
      throw new Error(`no disk is copied: ${sender.stderr()}`);
    }
    await Bun.sleep(10);
  }
}

async function requireRunning(machine: LiveMachine, host: LiveHost): Promise<void> {
  machine.host = host;
  expect((await machine.runners()).map(({ name }) => name)).toEqual([host.name]);
  await machine.reaches((await machine.sequence()) + 20);
  expect(await machine.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0, failures: [] });
}

/** Begins a copy that takes its time. */
async function beginSlowly(hosts: LiveHosts, machine: LiveMachine, rate: string, ...options: string[]) {
  const { receiver, token, target } = await hosts.b.receive("--once");
  const words = ["migrate", "send", "--copy-storage", "--bandwidth-max", rate, "--token", token, ...options];
  const sender = hosts.a.vhu(...words, machine.address, target);
  await untilCopying(hosts.b, sender);
  return { receiver, sender };
}

async function ended(process: VhuProcess): Promise<number | null> {
  await Promise.race([process.process.exited, Bun.sleep(WAIT_MS)]);
  return process.process.exitCode;
}

test.skipIf(!possible)(
  "a native machine under full load moves with its disks to a host that has none of them, while the cable is cut",
  async () => {
    using hosts = new LiveHosts();
    hosts.limit("1gbit");
    await using machine = await LiveMachine.start(hosts, { ownDiskMib: DISK_MIB, pauseMs: 0 });
    const { receiver, sender } = await beginSlowly(hosts, machine, "24M", "--json", "--downtime-max", "2000");
    await using _receiver = receiver;
    await using _sender = sender;
    hosts.isCut = true;
    await Bun.sleep(300);
    hosts.isCut = false;
    expect({ status: await ended(sender), text: sender.stderr() }).toMatchObject({ status: 0 });
    expect(await ended(receiver)).toBe(0);
    await requireRunning(machine, hosts.b);
    const [here, there] = [hosts.a, hosts.b].map((host) => host.path("m-data.img"));
    expect(readFileSync(there!).equals(readFileSync(here!))).toBe(true);
    // Holes are not sent, and stay holes; and the files of the source are left alone.
    expect(statSync(there!).blocks).toBeLessThan((DISK_MIB / 4) * 2048);
    expect(diskFiles(hosts.a).length).toBe(2);
    const { disks } = JSON.parse(sender.stdout().trim().split("\n").at(-1)!);
    expect(disks.map(({ path }: { path: string }) => path.split("/").at(-1))).toEqual(IMAGES);
    expect(disks[1].givenBytes).toBe(DISK_MIB << 17);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible)(
  "what is in the way of a copy is said before anything moves: no storage together, a file of that name, no space",
  async () => {
    using hosts = new LiveHosts();
    await using machine = await LiveMachine.start(hosts, { ownDiskMib: DISK_MIB });
    const { receiver, token, target } = await hosts.b.receive("--disk-max", `${DISK_MIB - 1}M`);
    await using _ = receiver;
    const next = () =>
      receiver
        .stderr()
        .match(/token: [A-Z2-7]+/g)!
        .at(-1)!
        .slice("token: ".length);
    const plain = await hosts.a.run("migrate", "send", "--token", token, machine.address, target);
    expect(plain.status).toBe(4);
    expect(plain.stderr).toContain("is not here: share it between the hosts");
    writeFileSync(hosts.b.path("m.img"), "");
    const words = [
      "migrate",
      "check",
      "--copy-storage",
      "--json",
      "--token",
      next(),
      machine.address,
      target,
    ];
    const check = await hosts.a.run(...words);
    expect(check.status).toBe(4);
    const { checks } = JSON.parse(check.stdout);
    const failed = checks
      .filter(({ ok }: { ok: boolean }) => !ok)
      .map(({ detail }: { detail: string }) => detail);
    expect(failed).toEqual([
      expect.stringContaining("vhu never writes over a file"),
      expect.stringContaining(`${(DISK_MIB - 1) << 20} may arrive`),
    ]);
    expect(statSync(hosts.b.path("m.img")).size).toBe(0);
    await requireRunning(machine, hosts.a);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible)(
  "whoever is killed, or whatever fills up while disks are copied: the machine runs on, and the half copies go",
  async () => {
    using hosts = new LiveHosts();
    const small = hosts.b.runFolder;
    await using machine = await LiveMachine.start(hosts, { ownDiskMib: DISK_MIB });
    {
      const { receiver, sender } = await beginSlowly(hosts, machine, "6M", "--retry", "1");
      await using _receiver = receiver;
      await using _sender = sender;
      receiver.process.kill("SIGKILL");
      expect(await ended(sender)).toBe(5);
      await requireRunning(machine, hosts.a);
      expect(diskFiles(hosts.b).length).toBe(2);
      const recovered = await hosts.b.run("migrate", "recover");
      expect(recovered).toMatchObject({ status: 0, stderr: expect.stringContaining("remove the image") });
      expect(diskFiles(hosts.b)).toEqual([]);
    }
    {
      const { receiver, sender } = await beginSlowly(hosts, machine, "6M", "--retry", "1");
      await using _receiver = receiver;
      await using _sender = sender;
      sender.process.kill("SIGKILL");
      expect(await ended(receiver)).toBe(5);
      expect(diskFiles(hosts.b)).toEqual([]);
      await requireRunning(machine, hosts.a);
      expect(await hosts.a.run("migrate", "recover")).toMatchObject({ status: 0 });
      await requireRunning(machine, hosts.a);
    }
    const mount = Bun.spawnSync([
      "mount",
      "-t",
      "tmpfs",
      "-o",
      `size=${DISK_MIB / 4}m,mode=0700`,
      "none",
      small,
    ]);
    expect(mount.exitCode).toBe(0);
    try {
      const { receiver, sender } = await beginSlowly(hosts, machine, "6M", "--retry", "1");
      await using _receiver = receiver;
      await using _sender = sender;
      writeFileSync(hosts.b.path("filler"), new Uint8Array((DISK_MIB / 4 - 12) << 20));
      expect(await ended(sender)).toBe(1);
      expect(sender.stderr()).toContain("its file system is full");
      await ended(receiver);
      expect(diskFiles(hosts.b)).toEqual([]);
      await requireRunning(machine, hosts.a);
      // Nothing is left of all that: it can still be sent.
      rmSync(hosts.b.path("filler"));
      await hopOnce(hosts, machine, "--copy-storage");
      await requireRunning(machine, hosts.b);
    } finally {
      Bun.spawnSync(["umount", "-l", small]);
    }
  },
  TEST_TIMEOUT_MS,
);
