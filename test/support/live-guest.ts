import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import type { LiveHost, LiveHosts } from "./live-hosts.ts";
import {
  type Beat,
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "./living-guest.ts";
import { NetNamespace } from "./net-namespace.ts";

const PORT = 7777;
const MAC = "52:54:00:00:00:02";
const IMAGE_BYTES = 64 << 20;
const BLOCK_BYTES = 16 * 1024;
const MEMORY_MIB = 256;

/**
 * Files that it opened before the first move; a connection, whose every number must come back; 8 MiB that it changes all the time,
 * and says so when what it reads is not what it wrote.
 */
const BEFORE = `mkdir /share && mount -t virtiofs shared /share || echo GUEST-ERRORS mount
exec 5>>/share/log 7</share/input
read first <&7; [ "$first" = line0 ] || echo "GUEST-ERRORS read $first"
ip link set lo up; ip link set eth0 up; ip address add 10.9.0.2/24 dev eth0
mkfifo /tmp/in /tmp/out; nc 10.9.0.1 ${PORT} </tmp/in >/tmp/out &
exec 8>/tmp/in 9</tmp/out
(n=0; while true; do n=$((n + 1)); echo $n >&8; read back <&9; [ "$back" = $n ] || { echo "GUEST-ERRORS $back came for $n"; sleep 1; }; done) &
dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null
(while true; do cp /tmp/seed /tmp/a; cp /tmp/a /tmp/b; cmp /tmp/a /tmp/b || echo GUEST-ERRORS torn; cmp /tmp/seed /tmp/b || echo GUEST-ERRORS torn; done) &`;
/** At each count a numbered block, read back around the cache, and lines to and from the open files. */
const EACH = `yes "block $i" | head -c ${BLOCK_BYTES} >/tmp/block
dd if=/tmp/block of=/dev/vda bs=${BLOCK_BYTES} seek=$i conv=notrunc,fsync 2>/dev/null || echo "GUEST-ERRORS write $i"
dd if=/dev/vda bs=${BLOCK_BYTES} skip=$i count=1 iflag=direct 2>/dev/null | cmp - /tmp/block || echo "GUEST-ERRORS block $i"
echo "$i" >&5 || echo GUEST-ERRORS share
if [ $((i % 10)) = 0 ]; then read line <&7; case "$line" in line*) ;; *) echo "GUEST-ERRORS read $line";; esac; fi`;

/**
 * A QEMU guest on one of two hosts that uses all that a move has to carry: memory, a counter, a disk of ours, files on virtiofs, and a
 * connection through our network device. Each host has back-ends of its own: the image and the shared folder are both hosts', the
 * taps are on one bridge, in a network of its own where the other end of the connection is. Those of the disk and the files come and go
 * with it, started by the receiver.
 */
export class LiveGuest implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #lan: NetNamespace;
  readonly #image: string;
  readonly #numbers: string;
  #qemu: RunningQemu | undefined;
  #server: Subprocess | undefined;
  nonce = "";

  private constructor(readonly hosts: LiveHosts) {
    this.#lan = this.#stack.use(new NetNamespace());
    this.#image = join(hosts.folder, "disk.img");
    this.#numbers = join(hosts.folder, "numbers");
  }

  /** Boots it on host a. */
  static async start(hosts: LiveHosts): Promise<LiveGuest> {
    const guest = new LiveGuest(hosts);
    try {
      await guest.#boot();
      return guest;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  get qemu(): RunningQemu {
    return this.#qemu!;
  }

  /** For the boot; at each move the receiver starts it. */
  async #startVirtiofsd(host: LiveHost): Promise<void> {
    const socket = join(this.hosts.folder, "run", "fs.sock");
    const { command } = requirePeers(["virtiofsd"])!.virtiofsd;
    const words = ["--socket-path", socket, "--shared-dir", this.#path("share"), "--sandbox", "none"];
    const log = openSync(this.#path(`virtiofsd-${host.name}.log`), "a");
    const daemon = Bun.spawn({
      cmd: ["setpriv", "--pdeathsig", "KILL", "--", ...host.within, ...command, ...words],
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    this.#stack.defer(async () => {
      daemon.kill("SIGKILL");
      await daemon.exited;
    });
    await until(() => existsSync(host.path("fs.sock")), "virtiofsd does not listen");
  }

  /** Waits until it has counted on, its disk, files and connection with it. */
  async goesOn(count: number): Promise<void> {
    const wanted = beats(this.qemu).length + count;
    const heard = this.#heard().length + count;
    await until(
      () => {
        this.requireOneLife();
        return beats(this.qemu).length >= wanted && this.#heard().length >= heard;
      },
      () => `the guest does not go on: ${this.qemu.serial().slice(-1000)}`,
    );
  }

  /** The longest time in which the world heard nothing of the guest, in milliseconds, of what came after `sinceMs`. */
  longestSilenceMs(sinceMs: number): number {
    const times = this.#heard()
      .map(({ atMs }) => atMs)
      .filter((atMs) => atMs >= sinceMs);
    return times.reduce((longest, atMs, at) => Math.max(longest, atMs - (times[at - 1] ?? atMs)), 0);
  }

  /** No other nonce, no count twice or left out, and nothing that the guest has complained of. Returns its beats. */
  requireOneLife(): readonly Beat[] {
    const found = beats(this.qemu);
    const wrong = found.findIndex((beat, index) => beat.nonce !== this.nonce || beat.count !== index);
    if (wrong !== -1)
      throw new Error(`beat ${wrong} is ${JSON.stringify(found[wrong])}, the life is ${this.nonce}`);
    const trouble = /GUEST-ERRORS.*|I\/O error.*/.exec(this.qemu.serial());
    if (trouble !== null) throw new Error(trouble[0]);
    return found;
  }

  /** Everything that it was told is written, as it is found from outside. */
  requireAllWritten(): void {
    const count = this.requireOneLife().length;
    const fd = openSync(this.#image, "r");
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let index = 0; index < count; index++) {
      readSync(fd, block, 0, BLOCK_BYTES, index * BLOCK_BYTES);
      if (!block.equals(Buffer.alloc(BLOCK_BYTES, `block ${index}\n`)))
        throw new Error(`block ${index} of ${count} is lost`);
    }
    closeSync(fd);
    const lines = readFileSync(this.#path("share/log"), "utf8").split("\n");
    const lost = Array.from({ length: count }, (_, index) => index).find(
      (index) => lines[index] !== `${index}`,
    );
    if (lost !== undefined) throw new Error(`line ${lost} of ${count} is not in the shared file`);
    const torn = this.#heard().find(({ number }, index) => number !== index + 1);
    if (torn !== undefined) throw new Error(`the connection brought ${torn.number} out of its turn`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#qemu?.stop();
    this.#server?.kill("SIGKILL");
    await this.#server?.exited;
    await this.#stack.disposeAsync();
  }

  async #boot(): Promise<void> {
    writeFileSync(this.#image, "");
    truncateSync(this.#image, IMAGE_BYTES);
    writeFileSync(this.#numbers, "");
    mkdirSync(this.#path("share"));
    const lines = Array.from({ length: 10_000 }, (_, at) => `line${at}\n`);
    writeFileSync(this.#path("share/input"), lines.join(""));
    await this.#serve();
    for (const host of [this.hosts.a, this.hosts.b]) await this.#prepare(host);
    await this.#startDisk(this.hosts.a);
    await this.#startVirtiofsd(this.hosts.a);
    const { folder } = this.hosts;
    const modules = ["virtio_blk", "virtio_net", "virtiofs"];
    const socket = (name: string) => join(folder, "run", `${name}.sock`);
    this.#qemu = await startListening({
      ...{ dir: folder, name: "vm", memoryMib: MEMORY_MIB, appendSerial: true, within: this.hosts.a.within },
      guest: livingGuest({ dir: folder, modules, before: BEFORE, each: EACH }),
      args: [
        ...["-name", "vm"],
        ...["-chardev", `socket,id=disk,path=${socket("disk")},reconnect-ms=200`],
        ...["-device", "vhost-user-blk-pci,chardev=disk"],
        ...[
          "-chardev",
          `socket,id=fs,path=${socket("fs")}`,
          "-device",
          "vhost-user-fs-pci,chardev=fs,tag=shared",
        ],
        ...["-chardev", `socket,id=net,path=${socket("net")}`, "-netdev", "vhost-user,id=n0,chardev=net"],
        ...["-device", `virtio-net-pci,netdev=n0,mac=${MAC}`],
      ],
    });
    this.nonce = (await waitForBeats(this.#qemu, 3)).nonce;
    await this.goesOn(2);
  }

  /** The bridge, and the one other end of the guest's connection. */
  async #serve(): Promise<void> {
    this.#lan.ip("link", "add", "bridge", "type", "bridge");
    this.#lan.ip("address", "add", "10.9.0.1/24", "dev", "bridge");
    this.#lan.ip("link", "set", "bridge", "up");
    const program = join(import.meta.dir, "line-server-program.ts");
    this.#server = this.#lan.start([process.execPath, program, "10.9.0.1", `${PORT}`, this.#numbers]);
    const listens = new RegExp(`:${PORT.toString(16).toUpperCase()} \\S+ 0A `);
    const table = `/proc/${this.#server.pid}/net/tcp`;
    await until(() => listens.test(readFileSync(table, "utf8")), "the server does not listen");
  }

  /** What the receiver may not start, since a sender must not choose an interface; and which virtiofsd is the host's. */
  async #prepare(host: LiveHost): Promise<void> {
    const config = this.#path(`config-${host.name}`);
    mkdirSync(join(config, "vhu"), { recursive: true });
    const command = JSON.stringify(requirePeers(["virtiofsd"])!.virtiofsd.command);
    writeFileSync(join(config, "vhu", "programs.toml"), `virtiofsd = ${command}\n`, { mode: 0o600 });
    host.environment.XDG_CONFIG_HOME = config;
    const tap = NetNamespace.interfaceName();
    const socket = join(this.hosts.folder, "run", "net.sock");
    const net = host.vhu("device", "run", "net", "--socket", socket, "--tap", tap, "--mac", MAC);
    this.#stack.use(net);
    await net.waitForStderr(/ready/, BOOT_TIMEOUT_MS);
    host.namespace!.ip("link", "set", tap, "netns", this.#lan.name);
    this.#lan.ip("link", "set", tap, "master", "bridge", "up");
  }

  async #startDisk(host: LiveHost): Promise<void> {
    const socket = join(this.hosts.folder, "run", "disk.sock");
    const words = ["--once", "--socket", socket, "--image", this.#image];
    const disk = this.#stack.use(host.vhu("device", "run", "blk", ...words));
    await disk.waitForStderr(/ready/, BOOT_TIMEOUT_MS);
  }

  #path(name: string): string {
    return join(this.hosts.folder, name);
  }

  #heard(): { readonly number: number; readonly atMs: number }[] {
    const lines = readFileSync(this.#numbers, "utf8").split("\n").slice(0, -1);
    return lines.map((line) => {
      const [number, atMs] = line.split(" ").map(Number);
      return { number: number!, atMs: atMs! };
    });
  }
}

async function until(isThere: () => boolean, what: string | (() => string)): Promise<void> {
  const deadline = performance.now() + BOOT_TIMEOUT_MS;
  while (!isThere()) {
    if (performance.now() > deadline) throw new Error(typeof what === "string" ? what : what());
    await Bun.sleep(20);
  }
}
