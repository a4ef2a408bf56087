import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RunningQemu } from "../peers/mod.ts";
import { peersFolder } from "../peers/peer.ts";
import type { LiveHost } from "./live-hosts.ts";
import { LiveHosts } from "./live-hosts.ts";
import { BOOT_TIMEOUT_MS, beats, livingGuest, startListening, waitForBeats } from "./living-guest.ts";
import type { VhuProcess } from "./vhu-process.ts";

const READY_MS = 30_000;
const POLL_MS = 20;
const COUNTS_PER_HOP = 12;

/** It changes 8 MiB all the time, and says when what it wrote is not what it reads. */
const BUSY = `dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null
(while true; do cp /tmp/seed /tmp/a; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b || echo TORN; cmp /tmp/seed /tmp/b || echo TORN; done) &`;
/** It writes a numbered block at each count, and reads all that it has written at every tenth. */
const WRITING = `yes "block $i" | head -c 16384 >/tmp/block; md5sum </tmp/block >/tmp/sum.$i
dd if=/tmp/block of=/dev/vda bs=16k seek=$i conv=notrunc,fsync 2>/dev/null || echo "GUEST-ERRORS write $i"
if [ $((i % 10)) = 9 ]; then j=0; while [ $j -le $i ]; do
dd if=/dev/vda bs=16k skip=$j count=1 iflag=direct 2>/dev/null | md5sum | cmp -s - /tmp/sum.$j || echo "GUEST-ERRORS block $j"
j=$((j + 1)); done; echo "CHECKED $i"; fi`;

export type LiveGuestWork = "memory" | "disk";

export interface LiveHopReport {
  readonly hops: number;
  readonly beats: number;
  /** As the sender reports them. */
  readonly downtimesMs: readonly number[];
}

/**
 * A QEMU guest that moves between two hosts, `hops` times: it changes its memory all the time, or writes to a disk for which
 * each host has a back-end of its own. Throws unless it is one life from the first to the last, with nothing lost.
 */
export async function hopQemu(work: LiveGuestWork, hops: number): Promise<LiveHopReport> {
  using hosts = new LiveHosts();
  hosts.limit("1gbit");
  const pids: number[] = [];
  await using stack = new AsyncDisposableStack();
  const devices = work === "disk" ? await startDisks(hosts, stack) : [];
  const guest = livingGuest({
    dir: hosts.folder,
    ...(work === "disk" ? { modules: ["virtio_blk"], each: WRITING } : { before: BUSY }),
  });
  await using qemu = await startListening({
    ...{ dir: hosts.folder, name: "vm", guest, memoryMib: 256, appendSerial: true, within: hosts.a.within },
    args: ["-name", "vm", ...devices],
  });
  const downtimesMs: number[] = [];
  try {
    const { nonce } = await waitForBeats(qemu, 3);
    let [from, address] = [hosts.a, `qmp:${qemu.qmpPath}`];
    for (let hop = 0; hop < hops; hop++) {
      const to = hosts.other(from);
      const moved = await move(from, to, address);
      pids.push(moved.pid);
      downtimesMs.push(moved.downtimeMs);
      [from, address] = [to, moved.address];
      await waitForMore(qemu, COUNTS_PER_HOP);
    }
    requireOneLife(qemu, nonce, work);
    return { hops, beats: beats(qemu).length, downtimesMs };
  } catch (error) {
    throw new Error(`${qemu.stderr()}\n${qemu.serial().slice(-1000)}`, { cause: error });
  } finally {
    for (const pid of pids) kill(pid);
  }
}

async function startDisks(hosts: LiveHosts, stack: AsyncDisposableStack): Promise<string[]> {
  const image = join(hosts.folder, "disk.img");
  const socket = join(hosts.folder, "run", "disk.sock");
  writeFileSync(image, "");
  truncateSync(image, 64 << 20);
  for (const host of [hosts.a, hosts.b]) {
    const daemon: VhuProcess = stack.use(
      host.vhu("device", "run", "blk", "--socket", socket, "--image", image),
    );
    await daemon.waitForStderr(/ready/, READY_MS);
  }
  return [
    ...["-chardev", `socket,id=disk,path=${socket},reconnect-ms=200`],
    ...["-device", "vhost-user-blk-pci,chardev=disk"],
  ];
}

async function move(from: LiveHost, to: LiveHost, address: string) {
  const { receiver, token, target } = await to.receive("--once", "--root", join(peersFolder(), "guest"));
  await using _ = receiver;
  const sent = await from.run("migrate", "send", "--json", "--token", token, address, target);
  if (sent.status !== 0 || sent.stderr !== "")
    throw new Error(`send ended with ${sent.status}: ${sent.stderr}`);
  await receiver.process.exited;
  if (receiver.process.exitCode !== 0) throw new Error(`receive failed: ${receiver.stderr()}`);
  const [, there] = /runs at (\S+);/.exec(receiver.stdout())!;
  const pid = Number(/process (\d+),/.exec(receiver.stdout())![1]);
  const { downtimeMs } = JSON.parse(sent.stdout.trim().split("\n").at(-1)!) as { downtimeMs: number };
  return { address: there!, pid, downtimeMs };
}

async function waitForMore(qemu: RunningQemu, count: number): Promise<void> {
  const wanted = beats(qemu).length + count;
  const deadline = performance.now() + BOOT_TIMEOUT_MS;
  while (beats(qemu).length < wanted) {
    if (performance.now() > deadline) throw new Error("the guest does not count");
    await Bun.sleep(POLL_MS);
  }
}

/** No other nonce, and no count twice or left out. */
function requireOneLife(qemu: RunningQemu, nonce: string, work: LiveGuestWork): void {
  const wrong = beats(qemu).findIndex((beat, index) => beat.nonce !== nonce || beat.count !== index);
  if (wrong !== -1)
    throw new Error(`beat ${wrong} is ${JSON.stringify(beats(qemu)[wrong])}, the life is ${nonce}`);
  const trouble = /TORN|GUEST-ERRORS.*|I\/O error/.exec(qemu.serial());
  if (trouble !== null) throw new Error(trouble[0]);
  if (work === "disk" && !qemu.serial().includes("CHECKED")) throw new Error("the guest has checked nothing");
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
}
