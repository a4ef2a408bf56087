import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { buildGuest, type Guest, type RunningQemu, requirePeers, startQemu } from "../peers/mod.ts";
import { type LiveHost, LiveHosts } from "../support/live-hosts.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import type { Bench, Contender, Contest } from "./support/bench.ts";
import { output, program } from "./support/processes.ts";

const MEMORY_MIB = 2048;
const DATA_BYTES = 2 ** 30;
const TIMEOUT_MS = 120_000;
const POLL_MS = 2;
const MIB = 2 ** 20;

/** A move of a QEMU guest of 2 GiB between two hosts, by vhu and by QEMU itself. */
export const live: Bench = {
  name: "live",
  meaning:
    "a running 2 GiB guest with 1 GiB of data to another host: vhu against QEMU's tcp and multifd with zstd",
  memoryBytes: 6 * 2 ** 30,
  async prepare({ say }) {
    const isThere = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]) !== undefined;
    if (!isThere || !NetNamespace.isPossible) {
      say("live: left out, it needs QEMU (test/peers/install.sh) and root");
      return [];
    }
    // On tmpfs, so that no disk is measured.
    const folder = mkdtempSync("/dev/shm/vhu-bench-");
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    const disk = join(folder, "data.raw");
    say("live: filling a guest");
    await output({ words: [...program("fill-guest-memory"), disk, `${DATA_BYTES}`] });
    return [
      await contest(folder, disk, { title: "at 1 Gbit/s, an idle guest", rate: "1gbit", totalAtMost: 0.8 }),
      await contest(folder, disk, { title: "at the speed of the veth, an idle guest", totalAtMost: 1.2 }),
      await contest(folder, disk, { title: "at 1 Gbit/s, 100 MB/s written", rate: "1gbit", isWriting: true }),
    ];
  },
};

interface Case {
  readonly title: string;
  readonly rate?: string;
  readonly totalAtMost?: number;
  readonly isWriting?: boolean;
}

async function contest(
  folder: string,
  disk: string,
  { title, rate, totalAtMost, isWriting }: Case,
): Promise<Contest> {
  let traveller: Traveller | undefined;
  const there = async () => {
    traveller ??= await Traveller.boot(folder, disk, isWriting ?? false, rate);
    return traveller;
  };
  const way = (name: string, move: (guest: Traveller) => Promise<void>): Contender => ({
    name,
    run: async () => (await there()).measured(move),
  });
  const own = ["tcp", "multifd"];
  return {
    title: `move a QEMU VM of 2 GiB, 1 GiB of it data, ${title}`,
    unit: "s",
    goals: totalAtMost === undefined ? [] : [{ of: "vhu", over: own, atMost: totalAtMost }],
    also: [
      { unit: "MiB on the wire", goals: [{ of: "vhu", over: "multifd", atMost: 0.8 }] },
      { unit: "ms that the guest stood still, as it saw it", goals: [{ of: "vhu", over: own, atMost: 1 }] },
    ],
    contenders: [
      way("vhu", (guest) => guest.moveByVhu()),
      way("tcp", (guest) => guest.moveByQemu([])),
      way("multifd", (guest) => guest.moveByQemu(["multifd"])),
    ],
  };
}

/** A guest that is somewhere, and can be sent to the other host. */
class Traveller {
  readonly #hosts = new LiveHosts();
  readonly #guest: Guest;
  #host: LiveHost = this.#hosts.a;
  #monitor = "";
  #count = 0;
  #serials: string[] = [];
  #running: RunningQemu | undefined;
  #arrived = 0;

  private constructor(
    readonly folder: string,
    readonly disk: string,
    guest: Guest,
  ) {
    this.#guest = guest;
  }

  static async boot(
    folder: string,
    disk: string,
    isWriting: boolean,
    rate: string | undefined,
  ): Promise<Traveller> {
    const work = isWriting
      ? "dd if=/dev/urandom of=/tmp/seed bs=1M count=10 2>/dev/null; (while :; do cp /tmp/seed /tmp/copy; sleep 0.09; done) &"
      : "";
    const init = `mount -o remount,size=90% /tmp
cat /dev/vda > /tmp/data
${work}
echo FILLED
i=0; while :; do i=$((i+1)); echo "COUNT $i"; usleep 10000; done`;
    const name = isWriting ? "writing" : "idle";
    const traveller = new Traveller(
      folder,
      disk,
      buildGuest({ dir: folder, name, modules: ["virtio_blk"], init }),
    );
    if (rate !== undefined) traveller.#hosts.limit(rate);
    const qemu = traveller.#start(traveller.#host, []);
    await qemu.waitForSerial(/FILLED[\s\S]*COUNT 10\n/, TIMEOUT_MS);
    process.on("exit", () => traveller.#end());
    return traveller;
  }

  #end(): void {
    try {
      if (this.#arrived > 0) process.kill(this.#arrived, "SIGKILL");
    } catch {
      // It was sent on, and has ended.
    }
    this.#hosts[Symbol.dispose]();
  }

  /** Seconds, MiB on the wire, and the longest silence of the guest in milliseconds. */
  async measured(move: (guest: Traveller) => Promise<void>): Promise<number[]> {
    const from = this.#host;
    const before = sentBytes(from);
    const silence = this.#longestSilence();
    const startMs = performance.now();
    await move(this);
    const seconds = (performance.now() - startMs) / 1000;
    const wire = (sentBytes(from) - before) / MIB;
    return [seconds, wire, await silence.end()];
  }

  async moveByVhu(): Promise<void> {
    const [from, to] = [this.#host, this.#hosts.other(this.#host)];
    const { receiver, token, target } = await to.receive("--once", "--root", "/");
    await using _ = receiver;
    const sent = await from.run("migrate", "send", "--token", token, `qmp:${this.#monitor}`, target);
    if (sent.status !== 0) throw new Error(sent.stderr);
    await receiver.process.exited;
    // What has arrived outlives its receiver, and must not outlive the bench.
    this.#arrived = Number(/process (\d+),/.exec(receiver.stdout())?.[1] ?? 0);
    this.#host = to;
    this.#monitor = to.path("vm.sock");
  }

  async moveByQemu(capabilities: readonly string[]): Promise<void> {
    const [to, monitor] = [this.#hosts.other(this.#host), this.#monitor];
    const qemu = this.#start(to, ["-incoming", "defer"]);
    const parameters = {
      "max-bandwidth": 2 ** 40,
      ...(capabilities.length > 0 ? { "multifd-channels": 2, "multifd-compression": "zstd" } : {}),
    };
    const settings = {
      capabilities: ["multifd"].map((capability) => ({
        capability,
        state: capabilities.includes(capability),
      })),
    };
    using source = await QmpClient.connect(monitor);
    using target = await connected(qemu);
    for (const client of [source, target]) {
      await ask(client, "migrate-set-capabilities", settings);
      await ask(client, "migrate-set-parameters", parameters);
    }
    await ask(target, "migrate-incoming", { uri: `tcp:${to.address}:4960` });
    await ask(source, "migrate", { uri: `tcp:${to.address}:4960` });
    for (;;) {
      const { status } = await ask(source, "query-migrate");
      if (status === "completed") break;
      if (status === "failed") throw new Error("QEMU's own migration failed");
      await Bun.sleep(POLL_MS);
    }
    await ask(source, "quit");
    this.#host = to;
    this.#monitor = qemu.qmpPath;
  }

  #start(host: LiveHost, args: readonly string[]): RunningQemu {
    const name = `vm${this.#count++}`;
    this.#serials = [join(this.folder, `${name}.serial`), ...this.#serials].slice(0, 2);
    this.#running = startQemu({
      ...{
        dir: this.folder,
        name,
        guest: this.#guest,
        memoryMib: MEMORY_MIB,
        within: host.within,
        appendSerial: true,
      },
      args: ["-name", "vm", "-drive", `if=virtio,format=raw,readonly=on,file=${this.disk}`, ...args],
    });
    this.#monitor = this.#running.qmpPath;
    return this.#running;
  }

  /** The guest prints all the time, into one of these files: how long did none of them grow? */
  #longestSilence() {
    let [isOver, longestMs, lastMs, lastBytes] = [false, 0, performance.now(), -1];
    const watching = (async () => {
      while (!isOver) {
        const bytes = this.#serials.reduce((sum, path) => sum + Bun.file(path).size, 0);
        const nowMs = performance.now();
        if (bytes !== lastBytes) {
          longestMs = Math.max(longestMs, nowMs - lastMs);
          [lastMs, lastBytes] = [nowMs, bytes];
        }
        await Bun.sleep(POLL_MS);
      }
    })();
    return {
      end: async () => {
        const bytes = lastBytes;
        while (lastBytes === bytes) await Bun.sleep(POLL_MS);
        isOver = true;
        await watching;
        return longestMs;
      },
    };
  }
}

async function connected(qemu: RunningQemu): Promise<QmpClient> {
  for (;;) {
    try {
      return await QmpClient.connect(qemu.qmpPath);
    } catch (error) {
      if (qemu.process.exitCode !== null) throw new Error(qemu.stderr(), { cause: error });
      await Bun.sleep(POLL_MS);
    }
  }
}

function ask(client: QmpClient, name: string, given: Record<string, unknown> = {}) {
  const answer = z.looseObject({ status: z.string().optional() });
  return client.request(name, { answer, arguments: given, timeoutMs: TIMEOUT_MS });
}

/** On the host's side of the cable. */
function sentBytes({ namespace }: LiveHost): number {
  const links = JSON.parse(namespace!.ip("-s", "-j", "link", "show")) as {
    ifname: string;
    stats64: { tx: { bytes: number } };
  }[];
  return links
    .filter(({ ifname }) => ifname !== "lo")
    .reduce((sum, { stats64 }) => sum + stats64.tx.bytes, 0);
}
