import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { requirePeers } from "../peers/mod.ts";
import { peersFolder } from "../peers/peer.ts";
import { LiveHosts } from "../support/live-hosts.ts";
import { BOOT_TIMEOUT_MS } from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { killQuietly } from "../support/started-machines.ts";
import { StorageGuest } from "../support/storage-guest.ts";
import type { VhuProcess } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "qemu-img", "guest-kernel", "busybox"]);
const possible = peers !== undefined && NetNamespace.isPossible;
const WAIT_MS = 60_000;
const COUNTS = 10;

async function begin(hosts: LiveHosts, guest: StorageGuest, ...options: string[]) {
  const root = ["--root", join(peersFolder(), "guest")];
  const { receiver, token, target } = await hosts.b.receive("--once", ...root);
  const words = ["migrate", "send", "--json", "--copy-storage", "--token", token, ...options];
  return { receiver, sender: hosts.a.vhu(...words, `qmp:${guest.qemu.qmpPath}`, target) };
}

async function ended({ process }: VhuProcess): Promise<number | null> {
  await Promise.race([process.exited, Bun.sleep(WAIT_MS)]);
  return process.exitCode;
}

/** Until the disks are being copied. */
async function untilCopying(guest: StorageGuest, sender: VhuProcess): Promise<void> {
  const images = guest.imagesOn(guest.hosts.b);
  const deadline = performance.now() + WAIT_MS;
  while (!images.every((path) => existsSync(path))) {
    if (performance.now() > deadline || sender.process.exitCode !== null) {
      throw new Error(`no disk is copied: ${sender.stderr()}`);
    }
    await Bun.sleep(10);
  }
  await Bun.sleep(400);
}

/** What vhu has left in QEMU's block layer. */
async function leftovers(guest: StorageGuest): Promise<string[]> {
  using client = await QmpClient.connect(guest.qemu.qmpPath);
  const named = z.array(z.looseObject({ "node-name": z.string().optional(), device: z.string().optional() }));
  const nodes = await client.request("query-named-block-nodes", { answer: named });
  const jobs = await client.request("query-block-jobs", { answer: named });
  return [...nodes.map((node) => node["node-name"]), ...jobs.map(({ device }) => device)].filter(
    (name): name is string => name?.startsWith("vhu-") ?? false,
  );
}

test.skipIf(!possible)(
  "a QEMU guest moves with its raw and qcow2 disks while it writes to them; whoever is killed before, it goes on",
  async () => {
    using hosts = new LiveHosts();
    hosts.limit("1gbit");
    await using guest = await StorageGuest.start(hosts);
    {
      const { receiver, sender } = await begin(hosts, guest, "--retry", "1", "--bandwidth-max", "4M");
      await using _receiver = receiver;
      await using _sender = sender;
      await untilCopying(guest, sender);
      sender.process.kill("SIGKILL");
      expect(await ended(receiver)).toBe(5);
      expect(guest.imagesOn(hosts.b).some((path) => existsSync(path))).toBe(false);
      await guest.goesOn(COUNTS);
      expect(await hosts.a.run("migrate", "recover")).toMatchObject({ status: 0 });
      expect(await leftovers(guest)).toEqual([]);
    }
    {
      const { receiver, sender } = await begin(hosts, guest, "--retry", "1", "--bandwidth-max", "4M");
      await using _receiver = receiver;
      await using _sender = sender;
      await untilCopying(guest, sender);
      receiver.process.kill("SIGKILL");
      expect(await ended(sender)).toBe(5);
      expect(await leftovers(guest)).toEqual([]);
      await guest.goesOn(COUNTS);
      expect(await hosts.b.run("migrate", "recover")).toMatchObject({ status: 0 });
      expect(guest.imagesOn(hosts.b).some((path) => existsSync(path))).toBe(false);
    }
    const { receiver, sender } = await begin(hosts, guest, "--bandwidth-max", "40M");
    await using _receiver = receiver;
    await using _sender = sender;
    await untilCopying(guest, sender);
    hosts.isCut = true;
    await Bun.sleep(200);
    hosts.isCut = false;
    expect({ status: await ended(sender), text: sender.stderr() }).toMatchObject({ status: 0 });
    expect(await ended(receiver)).toBe(0);
    const pid = Number(/process (\d+),/.exec(receiver.stdout())![1]);
    try {
      await guest.goesOn(2 * COUNTS);
    } finally {
      killQuietly(pid);
    }
    while (existsSync(`/proc/${pid}`)) await Bun.sleep(10);
    guest.requireWhole(hosts.b);
    const { disks } = JSON.parse(sender.stdout().trim().split("\n").at(-1)!);
    expect(disks.map(({ path }: { path: string }) => path.split("/").at(-1))).toEqual([
      "disk.raw",
      "disk.qcow2",
    ]);
  },
  3 * BOOT_TIMEOUT_MS,
);
