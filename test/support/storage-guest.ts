import { closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import type { LiveHost, LiveHosts } from "./live-hosts.ts";
import { BOOT_TIMEOUT_MS, beats, livingGuest, startListening, waitForBeats } from "./living-guest.ts";

const MIB = 1 << 20;
const DISK_MIB = 128;
/** From here on the disks have what the guest does not touch. */
const STATIC_AT = 64 * MIB;
const BLOCK_BYTES = 16 * 1024;
const MEMORY_MIB = 128;
/** Names, as both hosts have them in their `run`. */
const RAW = "disk.raw";
const QCOW2 = "disk.qcow2";

/** At each count a numbered block on both disks, read back around the cache; and 64 KiB that are overwritten at each. */
const EACH = `yes "block $i" | head -c ${BLOCK_BYTES} >/tmp/block
for d in vda vdb; do
dd if=/tmp/block of=/dev/$d bs=${BLOCK_BYTES} seek=$i conv=notrunc,fsync 2>/dev/null || echo "GUEST-ERRORS write $i"
dd if=/dev/$d bs=${BLOCK_BYTES} skip=$i count=1 iflag=direct 2>/dev/null | cmp - /tmp/block || echo "GUEST-ERRORS block $i"
yes "again $i" | head -c 65536 | dd of=/dev/$d bs=64k seek=512 conv=notrunc 2>/dev/null || echo "GUEST-ERRORS again $i"
done`;

/** A QEMU guest on host a that writes to a raw and a qcow2 disk, which host a alone has. */
export class StorageGuest implements AsyncDisposable {
  readonly #content = new Uint8Array(12 * MIB);
  #qemu: RunningQemu | undefined;
  nonce = "";

  private constructor(readonly hosts: LiveHosts) {}

  static async start(hosts: LiveHosts): Promise<StorageGuest> {
    const guest = new StorageGuest(hosts);
    guest.#makeDisks();
    const run = (name: string) => join(hosts.folder, "run", name);
    const qemu = await startListening({
      ...{ dir: hosts.folder, name: "vm", memoryMib: MEMORY_MIB, appendSerial: true, within: hosts.a.within },
      guest: livingGuest({ dir: hosts.folder, modules: ["virtio_blk"], each: EACH }),
      args: [
        ...["-name", "vm", "-drive", `file=${run(RAW)},format=raw,if=virtio`],
        ...["-blockdev", `driver=qcow2,node-name=second,file.driver=file,file.filename=${run(QCOW2)}`],
        ...["-device", "virtio-blk-pci,drive=second,id=second-disk"],
      ],
    });
    guest.#qemu = qemu;
    try {
      guest.nonce = (await waitForBeats(qemu, 3)).nonce;
    } catch (error) {
      await qemu.stop();
      throw error;
    }
    return guest;
  }

  get qemu(): RunningQemu {
    return this.#qemu!;
  }

  /** Where both hosts have them; and as the tests see those of one. */
  imagesOn(host: LiveHost): readonly string[] {
    return [host.path(RAW), host.path(QCOW2)];
  }

  /** Waits until it has counted on. */
  async goesOn(count: number): Promise<void> {
    const wanted = beats(this.qemu).length + count;
    const deadline = performance.now() + BOOT_TIMEOUT_MS;
    while (beats(this.qemu).length < wanted) {
      this.requireOneLife();
      if (performance.now() > deadline)
        throw new Error(`the guest does not go on: ${this.qemu.serial().slice(-1000)}`);
      await Bun.sleep(20);
    }
  }

  /** No other nonce, no count twice or left out, and nothing that the guest has complained of. Returns how far it has counted. */
  requireOneLife(): number {
    const found = beats(this.qemu);
    const wrong = found.findIndex((beat, index) => beat.nonce !== this.nonce || beat.count !== index);
    if (wrong !== -1)
      throw new Error(`beat ${wrong} is ${JSON.stringify(found[wrong])}, the life is ${this.nonce}`);
    const trouble = /GUEST-ERRORS.*|I\/O error.*/.exec(this.qemu.serial());
    if (trouble !== null) throw new Error(trouble[0]);
    return found.length;
  }

  /** The images on a host, once nobody has them open: whole, with all that the guest has written, and what was there before it. */
  requireWhole(host: LiveHost): void {
    const count = this.requireOneLife();
    const [raw, qcow2] = this.imagesOn(host) as [string, string];
    qemuImg("check", "-f", "qcow2", qcow2);
    const converted = `${qcow2}.raw`;
    qemuImg("convert", "-f", "qcow2", "-O", "raw", qcow2, converted);
    for (const path of [raw, converted]) {
      const bytes = readFileSync(path);
      if (bytes.length !== DISK_MIB * MIB) throw new Error(`${path} has ${bytes.length} bytes`);
      for (let index = 0; index < count; index++) {
        const block = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
        if (!block.equals(Buffer.alloc(BLOCK_BYTES, `block ${index}\n`)))
          throw new Error(`${path}: block ${index} of ${count} is lost`);
      }
      const before = bytes.subarray(STATIC_AT, STATIC_AT + this.#content.length);
      if (!before.equals(this.#content)) throw new Error(`${path}: what was there before is another`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#qemu?.stop();
  }

  #makeDisks(): void {
    // A hole and zeros among it.
    for (let at = 0; at < this.#content.length; at += 65_536) {
      if (at % (3 * MIB) >= MIB) crypto.getRandomValues(this.#content.subarray(at, at + 65_536));
    }
    const [raw, qcow2] = this.imagesOn(this.hosts.a) as [string, string];
    writeFileSync(raw, "");
    truncateSync(raw, DISK_MIB * MIB);
    const fd = openSync(raw, "r+");
    writeSync(fd, this.#content, 0, this.#content.length, STATIC_AT);
    closeSync(fd);
    qemuImg("convert", "-f", "raw", "-O", "qcow2", raw, qcow2);
  }
}

function qemuImg(...args: string[]): void {
  const { command } = requirePeers(["qemu-img"])!["qemu-img"];
  const { exitCode, stdout, stderr } = Bun.spawnSync({ cmd: [...command, ...args] });
  if (exitCode !== 0) throw new Error(`qemu-img ${args.join(" ")}: ${stdout}${stderr}`);
}
