import { expect, test } from "bun:test";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import { peersFolder } from "../peers/peer.ts";
import { LiveHosts } from "../support/live-hosts.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { killQuietly } from "../support/started-machines.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const possible = peers !== undefined && NetNamespace.isPossible;

/** 64 MiB that become something else all the time, as fast as the guest can: 150 to 250 MB/s under TCG, and no page compresses. */
const BUSY = `for s in 1 2; do dd if=/dev/urandom of=/tmp/s$s bs=1M count=32 2>/dev/null; done
(while true; do for s in 1 2; do for t in x y; do dd if=/tmp/s$s of=/tmp/$t bs=1M conv=notrunc 2>/dev/null; done; done; done) &`;

test.skipIf(!possible)(
  "a guest that changes its memory faster than the link takes it: NOT_CONVERGING, exit status 4, and it runs on; --auto-converge brings it over, or says the same; --dirty-limit needs KVM",
  async () => {
    using hosts = new LiveHosts();
    hosts.limit("1gbit");
    const guest = livingGuest({ dir: hosts.folder, before: BUSY });
    await using qemu = await startListening({
      ...{ dir: hosts.folder, name: "vm", guest, memoryMib: 256, appendSerial: true, within: hosts.a.within },
      args: ["-name", "vm"],
    });
    const { nonce } = await waitForBeats(qemu, 3);
    const { receiver } = await hosts.b.receive("--root", join(peersFolder(), "guest"));
    await using _ = receiver;
    let moves = 0;
    const send = async (...words: string[]) => {
      moves += 1;
      const tokens = new RegExp(`(?:token: [A-Z2-7]+[^]*?){${moves - 1}}token: ([A-Z2-7]+)`);
      const token = (await receiver.waitForStderr(tokens, BOOT_TIMEOUT_MS)).split("token: ").at(-1)!;
      const target = `tcp:${hosts.b.address}:4950`;
      return await hosts.a.run("migrate", "send", ...words, "--token", token, `qmp:${qemu.qmpPath}`, target);
    };
    // The serial log goes on wherever the guest runs.
    const goesOn = async () => {
      const before = beats(qemu).length;
      const deadline = performance.now() + BOOT_TIMEOUT_MS;
      while (beats(qemu).length < before + 3) {
        if (performance.now() > deadline) throw new Error("the guest stands still");
        await Bun.sleep(20);
      }
      expect(beats(qemu).findIndex((beat, at) => beat.count !== at || beat.nonce !== nonce)).toBe(-1);
    };
    const limited = await send("--dirty-limit");
    expect(limited.stderr).toContain("dirty-limit requires KVM");
    expect(limited.status).toBe(4);
    await goesOn();

    const lost = await send("--json");
    expect(lost.status).toBe(4);
    expect(lost.stderr).toContain('"code":"NOT_CONVERGING"');
    expect(await runState(qemu)).toBe("running");
    await goesOn();

    const slowed = await send("--auto-converge");
    expect(slowed.stderr).toMatch(/the machine is held up for \d+% of its time/);
    expect([0, 4]).toContain(slowed.status as number);
    if (slowed.status === 4) expect(slowed.stderr).toContain("faster than it can be copied");
    await receiver.end("SIGTERM");
    await goesOn();
    const pid = /process (\d+),/.exec(receiver.stdout())?.[1];
    expect(pid !== undefined).toBe(slowed.status === 0);
    if (pid !== undefined) killQuietly(Number(pid));
  },
  4 * BOOT_TIMEOUT_MS,
);
