import { expect, test } from "bun:test";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import { peersFolder } from "../peers/peer.ts";
import { type LiveHost, LiveHosts } from "../support/live-hosts.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const possible = peers !== undefined && NetNamespace.isPossible;
const TEST_TIMEOUT_MS = 3 * BOOT_TIMEOUT_MS;

/** It changes 8 MiB all the time, and says when what it wrote is not what it reads. */
const BUSY = `dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null
(while true; do cp /tmp/seed /tmp/a; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b || echo TORN; cmp /tmp/seed /tmp/b || echo TORN; done) &`;

test.skipIf(!possible)(
  "a QEMU guest moves there and back while it runs: the same life, and its counter never goes back",
  async () => {
    using hosts = new LiveHosts();
    hosts.limit("1gbit");
    const guest = livingGuest({ dir: hosts.folder, before: BUSY });
    const pids: number[] = [];
    await using qemu = await startListening({
      ...{ dir: hosts.folder, name: "vm", guest, memoryMib: 256, appendSerial: true },
      args: ["-name", "vm"],
    });
    try {
      const { nonce } = await waitForBeats(qemu, 3);
      const move = async (from: LiveHost, to: LiveHost, address: string) => {
        const { receiver, token, target } = await to.receive(
          "--once",
          "--root",
          join(peersFolder(), "guest"),
        );
        await using _ = receiver;
        const sent = await from.run("migrate", "send", "--json", "--token", token, address, target);
        expect([sent.status, sent.stderr]).toEqual([0, ""]);
        await receiver.process.exited;
        expect([receiver.process.exitCode, receiver.stderr().match(/error.*/)?.[0]]).toEqual([0, undefined]);
        const [, there] = /runs at (\S+);/.exec(receiver.stdout())!;
        pids.push(Number(/process (\d+),/.exec(receiver.stdout())![1]));
        expect(there).toBe(`qmp:${join(hosts.folder, "run", "vm.sock")}`);
        return there!;
      };
      const there = await move(hosts.a, hosts.b, `qmp:${qemu.qmpPath}`);
      await waitForMore(5);
      await move(hosts.b, hosts.a, there);
      await waitForMore(5);
      const counts = beats(qemu);
      expect(new Set(counts.map((beat) => beat.nonce))).toEqual(new Set([nonce]));
      expect(counts.map(({ count }) => count)).toEqual(counts.map((_, index) => index));
      expect(qemu.serial()).not.toContain("TORN");
    } finally {
      for (const pid of pids) kill(pid);
    }

    async function waitForMore(count: number): Promise<void> {
      const wanted = beats(qemu).length + count;
      const deadline = performance.now() + BOOT_TIMEOUT_MS;
      while (beats(qemu).length < wanted) {
        if (performance.now() > deadline)
          throw new Error(`the guest does not count: ${qemu.serial().slice(-500)}`);
        await Bun.sleep(20);
      }
    }
  },
  TEST_TIMEOUT_MS,
);

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
}
