import { closeSync, openSync, readFileSync, readSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { z } from "zod";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { PeerError } from "../../src/errors.ts";
import { buildGuest, type Guest, type RunningQemu, requirePeers, startQemu } from "../peers/mod.ts";
import { NetNamespace } from "./net-namespace.ts";
import { startVhu, type VhuProcess } from "./vhu-process.ts";

/** A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that. */
export const GUEST_TIMEOUT_MS = 120_000;
const POLL_MS = 10;
const BLOCK_BYTES = 16 * 1024;
const IMAGE_BYTES = 1 << 30;
const PORT = 7777;
const MAC = "52:54:00:00:00:02";

/** What the guest does until the server says "stop": numbers go there and come back, numbered blocks to the disk. */
const INIT = `ip link set lo up; ip link set eth0 up; ip address add 10.9.0.2/24 dev eth0
mkfifo /tmp/in /tmp/out
nc 10.9.0.1 ${PORT} </tmp/in >/tmp/out &
exec 3>/tmp/in 4</tmp/out
count() {
  n=0
  while [ "$word" != stop ]; do
    n=$((n + 1)); echo $n >&3
    read -r back word <&4 || { echo GUEST-ERRORS the connection ended; break; }
    [ "$back" = $n ] || echo "GUEST-ERRORS $back came for $n"
    [ $((n % 50)) = 0 ] && echo "GUEST-COUNTS $n"
  done
  touch /tmp/stop; echo "GUEST-COUNTED $n"
}
block() { yes "block $1" | head -c ${BLOCK_BYTES}; }
check() {
  dd if=/dev/vda bs=${BLOCK_BYTES} skip=$1 count=1 iflag=direct 2>/dev/null | md5sum | cmp -s - /tmp/sum.$1 \\
    || echo "GUEST-ERRORS block $1"
}
count &
i=0
while [ ! -e /tmp/stop ]; do
  block $i >/tmp/block && md5sum </tmp/block >/tmp/sum.$i
  dd if=/tmp/block of=/dev/vda bs=${BLOCK_BYTES} seek=$i conv=notrunc,fsync 2>/dev/null || echo "GUEST-ERRORS write $i"
  echo "GUEST-WROTE $i"; check $i; i=$((i + 1))
done
j=0; while [ $j -lt $i ]; do check $j; j=$((j + 1)); done
dmesg | grep -iE "I/O error|virtio.*(error|broken|invalid)" && echo GUEST-ERRORS
echo "GUEST-VERIFIED $i"
`;

export interface Hop {
  readonly status: "completed" | "failed";
  /** As QEMU reports them. */
  readonly downtimeMs: number;
  readonly totalMs: number;
}

export interface FinalCounts {
  readonly blocks: number;
  readonly counted: number;
}

interface Side {
  readonly daemons: readonly VhuProcess[];
  readonly args: readonly string[];
}

interface Place {
  readonly side: number;
  readonly qemu: RunningQemu;
  readonly monitor: QmpClient;
  /** QEMU's trace of the vhost-user requests that it sends. */
  readonly tracePath: string;
}

const info = z.looseObject({
  status: z.string(),
  downtime: z.number().optional(),
  "total-time": z.number().optional(),
});
const nothing = z.looseObject({});

/**
 * A guest with a disk and a network card of ours, and two places where it can run, each with daemons of its own: the
 * image is shared, the taps are on one bridge in a namespace. In it a server takes one connection, ever.
 */
export class MigratingGuest implements AsyncDisposable {
  readonly #sides: Side[] = [];
  readonly #guest: Guest;
  readonly #image: string;
  readonly #namespace = new NetNamespace();
  #place: Place | undefined;
  #server: Subprocess | undefined;
  #qemuCount = 0;

  private constructor(readonly dir: string) {
    this.#image = join(dir, "disk");
    writeFileSync(this.#image, "");
    truncateSync(this.#image, IMAGE_BYTES);
    this.#guest = buildGuest({ dir, modules: ["virtio_blk", "virtio_net"], init: INIT });
  }

  /** Boots it on the first side; `macs` are those that the two sides' cards insist on. */
  static async start(dir: string, macs: readonly [string, string] = [MAC, MAC]): Promise<MigratingGuest> {
    const guest = new MigratingGuest(dir);
    try {
      await guest.#serve();
      for (const [index, mac] of macs.entries()) guest.#sides.push(await guest.#startSide(`${index}`, mac));
      guest.#place = await guest.#startQemu(0);
      await guest.goesOn();
      return guest;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the daemons of a side have logged. */
  log(side: number): string {
    return this.#sides[side]!.daemons.map((daemon) => daemon.stderr()).join("");
  }

  /** Waits until the guest has counted and written more than it has by now. */
  async goesOn(): Promise<void> {
    const { qemu } = this.#current;
    for (const word of ["COUNTS", "WROTE"]) {
      const line = `GUEST-${word} \\d+\\n`;
      const more = (qemu.serial().match(new RegExp(line, "g")) ?? []).length + 3;
      await qemu.waitForSerial(new RegExp(`(?:${line}[^]*?){${more}}`), GUEST_TIMEOUT_MS);
    }
  }

  /** Migrates it to the other side. When that fails, it is where it was. */
  async migrate(): Promise<Hop> {
    const source = this.#current;
    const target = await this.#startQemu(1 - source.side, ["-incoming", "defer"]);
    const uri = `unix:${join(this.dir, `m${this.#qemuCount}`)}`;
    const capabilities = ["return-path", "events"].map((capability) => ({ capability, state: true }));
    for (const { monitor } of [source, target]) {
      await monitor.request("migrate-set-capabilities", { answer: nothing, arguments: { capabilities } });
    }
    await target.monitor.request("migrate-incoming", { answer: nothing, arguments: { uri } });
    await source.monitor.request("migrate", { answer: nothing, arguments: { uri } });
    const end = await migrationEnd(source.monitor);
    const left = end.status === "completed" ? source : target;
    this.#place = left === source ? target : source;
    const transfers = [countStateTransfers(source), countStateTransfers(target)];
    left.monitor[Symbol.dispose]();
    await left.qemu.stop();
    if (end.status !== "completed") return { status: "failed", downtimeMs: 0, totalMs: 0 };
    // The boot's QEMU has saved; any other has loaded before.
    const wanted = source.tracePath.endsWith("q0.trace") ? "1,1" : "2,1";
    if (`${transfers}` !== wanted)
      throw new Error(`QEMU transferred ${transfers} device states, not ${wanted}`);
    return { status: "completed", downtimeMs: end.downtime!, totalMs: end["total-time"]! };
  }

  /** Ends the guest's work, and checks what is on the disk and what the server has got. */
  async finish(): Promise<FinalCounts> {
    const { qemu } = this.#current;
    writeFileSync(join(this.dir, "stop"), "");
    const counted = Number((await qemu.waitForSerial(/GUEST-COUNTED (\d+)/, GUEST_TIMEOUT_MS)).split(" ")[1]);
    const blocks = Number((await qemu.waitForSerial(/GUEST-VERIFIED (\d+)/, GUEST_TIMEOUT_MS)).split(" ")[1]);
    const status = await qemu.waitForExit(GUEST_TIMEOUT_MS);
    if (status !== 0) throw new Error(`QEMU ended with ${status}`);
    for (let hop = 0; hop < this.#qemuCount; hop++) {
      const serial = readFileSync(join(this.dir, `q${hop}.serial`), "latin1");
      if (serial.includes("GUEST-ERRORS")) throw new Error(`the guest saw errors: ${serial.slice(-2000)}`);
    }
    const numbers = readFileSync(join(this.dir, "numbers"), "utf8").trimEnd().split("\n").map(Number);
    if (numbers.length !== counted || numbers.some((number, index) => number !== index + 1)) {
      throw new Error(`the server got ${numbers.length} numbers, the guest sent ${counted}`);
    }
    this.#checkDisk(blocks);
    return { blocks, counted };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#place?.monitor[Symbol.dispose]();
    await this.#place?.qemu.stop();
    for (const { daemons } of this.#sides) for (const daemon of daemons) await daemon[Symbol.asyncDispose]();
    this.#server?.kill("SIGKILL");
    await this.#server?.exited;
    this.#namespace[Symbol.dispose]();
  }
  get #current(): Place {
    if (this.#place === undefined) throw new Error("the guest runs nowhere");
    return this.#place;
  }

  /** The bridge, and a server there that answers each line with itself and "go" or "stop". */
  async #serve(): Promise<void> {
    this.#namespace.ip("link", "add", "bridge", "type", "bridge");
    this.#namespace.ip("address", "add", "10.9.0.1/24", "dev", "bridge");
    this.#namespace.ip("link", "set", "bridge", "up");
    const script = join(this.dir, "server.sh");
    writeFileSync(
      script,
      `cd ${this.dir}; while read -r n; do echo "$n" >>numbers; word=go; [ -e stop ] && word=stop; echo "$n $word"; done\n`,
    );
    const busybox = requirePeers(["busybox"])!.busybox.command;
    // Without a second l it takes one connection and no other.
    const words = ["nc", "-l", "-p", `${PORT}`, "-e", ...busybox, "sh", script];
    const server = this.#namespace.start([...busybox, ...words]);
    this.#server = server;
    const listens = new RegExp(`:${PORT.toString(16).toUpperCase()} \\S+ 0A `);
    while (
      !["tcp", "tcp6"].some((name) => listens.test(readFileSync(`/proc/${server.pid}/net/${name}`, "utf8")))
    )
      await Bun.sleep(POLL_MS);
  }

  async #startSide(name: string, mac: string): Promise<Side> {
    const [net, blk] = [join(this.dir, `n${name}`), join(this.dir, `b${name}`)];
    const tap = NetNamespace.interfaceName();
    const daemons = [
      startVhu(["device", "run", "net", "--log-level", "debug", "--socket", net, "--tap", tap, "--mac", mac]),
      startVhu(["device", "run", "blk", "--log-level", "debug", "--socket", blk, "--image", this.#image]),
    ];
    const side = {
      daemons,
      args: [
        ...["-chardev", `socket,id=c0,path=${net}`, "-netdev", "vhost-user,id=n0,chardev=c0"],
        ...["-device", `virtio-net-pci,netdev=n0,mac=${MAC}`],
        ...["-chardev", `socket,id=c1,path=${blk}`, "-device", "vhost-user-blk-pci,chardev=c1"],
      ],
    };
    try {
      for (const daemon of daemons) await daemon.waitForStderr(/ready at/, GUEST_TIMEOUT_MS);
      this.#namespace.plug(tap, "bridge");
    } catch (error) {
      for (const daemon of daemons) await daemon[Symbol.asyncDispose]();
      throw error;
    }
    return side;
  }

  async #startQemu(side: number, args: readonly string[] = []): Promise<Place> {
    const name = `q${this.#qemuCount++}`;
    const tracePath = join(this.dir, `${name}.trace`);
    const qemu = startQemu({
      dir: this.dir,
      name,
      guest: this.#guest,
      memoryMib: 256,
      args: ["-trace", "vhost_user_write", "-D", tracePath, ...this.#sides[side]!.args, ...args],
    });
    try {
      return { side, qemu, tracePath, monitor: await connectMonitor(qemu) };
    } catch (error) {
      await qemu.stop();
      throw error;
    }
  }

  /** Every block that the guest was told is written is in the image. */
  #checkDisk(blocks: number): void {
    const fd = openSync(this.#image, "r");
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let index = 0; index < blocks; index++) {
      const line = `block ${index}\n`;
      const wanted = Buffer.alloc(BLOCK_BYTES, line);
      readSync(fd, block, 0, BLOCK_BYTES, index * BLOCK_BYTES);
      if (!block.equals(wanted)) throw new Error(`block ${index} of ${blocks} is lost`);
    }
    closeSync(fd);
  }
}

/** The socket's file is there before QEMU listens. */
async function connectMonitor(qemu: RunningQemu): Promise<QmpClient> {
  for (;;) {
    try {
      return await QmpClient.connect(qemu.qmpPath);
    } catch (error) {
      if (!(error instanceof PeerError && error.reconnect)) throw error;
      if (qemu.process.exitCode !== null) throw new Error(`QEMU ended: ${qemu.stderr()}`);
      await Bun.sleep(POLL_MS);
    }
  }
}

async function migrationEnd(monitor: QmpClient): Promise<z.infer<typeof info>> {
  for (const deadline = performance.now() + GUEST_TIMEOUT_MS; performance.now() < deadline; ) {
    const now = await monitor.request("query-migrate", { answer: info });
    if (now.status === "completed" || now.status === "failed") return now;
    await Bun.sleep(POLL_MS);
  }
  throw new Error(`the migration did not end in ${GUEST_TIMEOUT_MS} ms`);
}

/** How often this QEMU sent SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE (requests 42 and 43). */
function countStateTransfers({ tracePath }: Place): number {
  const trace = readFileSync(tracePath, "utf8");
  const [set, check] = [42, 43].map(
    (request) => (trace.match(new RegExp(`vhost_user_write req:${request} `, "g")) ?? []).length,
  );
  if (set !== check) throw new Error(`QEMU began ${set} transfers of a device state, and checked ${check}`);
  return set!;
}
