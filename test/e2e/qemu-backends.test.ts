import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { startPeerBackend } from "../support/peer-backend.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox", "virtiofsd"]);
const IMAGE_BYTES = 32 << 20;
const MEMORY_MIB = 256;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qbe-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** The disk has a file system of the guest's; it writes to files that it opened before the save, on both. */
const BEFORE = `mke2fs -F /dev/vda >/dev/null && mkdir /disk && mount -t ext2 /dev/vda /disk && mkdir /share \\
  && mount -t virtiofs shared /share || echo MOUNT-FAILED
exec 5>>/disk/log 6>>/share/log 7</share/input
read first <&7; echo "READ $first"`;
const EACH = `echo "$i" >&5 || echo DISK-FAILED
echo "$i" >&6 || echo SHARE-FAILED
if [ $((i % 10)) = 0 ]; then read line <&7 && echo "READ $line"; sync; fi`;
const ERRORS = /FAILED|I\/O error|EXT4-fs error/;

async function startBackends(name: string) {
  const blk = startVhu([
    "device",
    "run",
    "blk",
    "--socket",
    join(dir, "blk.sock"),
    "--image",
    join(dir, "disk.raw"),
  ]);
  await blk.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  const share = join(dir, "share");
  const fs = startPeerBackend({
    dir,
    name: `fs-${name}`,
    command: (socket) => [
      ...peers!.virtiofsd.command,
      ...["--socket-path", socket, "--shared-dir", share, "--sandbox", "none"],
    ],
  });
  await fs.listening();
  return {
    blk,
    fs,
    args: [
      ...[
        "-chardev",
        `socket,id=c0,path=${join(dir, "blk.sock")}`,
        "-device",
        "vhost-user-blk-pci,chardev=c0",
      ],
      ...["-chardev", `socket,id=c1,path=${fs.socketPath}`],
      ...["-device", "vhost-user-fs-pci,chardev=c1,tag=shared"],
    ],
    async [Symbol.asyncDispose]() {
      await blk.end("SIGKILL");
      await blk[Symbol.asyncDispose]();
      await fs.kill();
    },
  };
}

test.skipIf(!peers)(
  "a VM on our disk and on virtiofsd: saved, everything killed, loaded; the same life, its open files go on",
  async () => {
    writeFileSync(join(dir, "disk.raw"), "");
    truncateSync(join(dir, "disk.raw"), IMAGE_BYTES);
    mkdirSync(join(dir, "share"));
    writeFileSync(
      join(dir, "share", "input"),
      Array.from({ length: 500 }, (_, at) => `line${at}\n`).join(""),
    );
    const file = join(dir, "vm.vhu");
    const guest = livingGuest({ dir, modules: ["virtio_blk", "virtiofs"], before: BEFORE, each: EACH });
    let nonce: string;
    let last: number;
    let firstOutput: string;
    {
      await using backends = await startBackends("a");
      await using source = await startListening({
        dir,
        name: "source",
        guest,
        memoryMib: MEMORY_MIB,
        args: backends.args,
      });
      ({ nonce } = await waitForBeats(source, 15));
      const refused = await runVhu(["migrate", "save", `qmp:${source.qmpPath}`, file]);
      expect(refused).toMatchObject({ status: 4 });
      expect(refused.stderr).toContain("vhost-user-fs");
      const saved = await runVhu(["migrate", "save", "--stop", `qmp:${source.qmpPath}`, file]);
      expect(saved.stderr).toBe("");
      expect(saved.status).toBe(0);
      await source.waitForExit(BOOT_TIMEOUT_MS);
      last = beats(source).at(-1)!.count;
      firstOutput = source.serial();
    }
    expect(firstOutput).not.toMatch(ERRORS);
    using reader = SnapshotReader.open(file);
    const { virtioDevices, sockets, sections } = reader.manifest.machine as {
      sections: { name: string; sizeBytes: number }[];
      virtioDevices: { type: string }[];
      sockets: { chardev: string }[];
    };
    expect(virtioDevices.map(({ type }) => type)).toEqual(["vhost-user-blk", "vhost-user-fs"]);
    // The state that virtiofsd gave is inside QEMU's own stream.
    expect(sections.find(({ name }) => name.endsWith("/vhost-user-fs"))!.sizeBytes).toBeGreaterThan(100);
    expect(sockets.map(({ chardev }) => chardev)).toContain("c1");
    {
      await using backends = await startBackends("b");
      await using target = await startListening({
        dir,
        name: "target",
        guest,
        memoryMib: MEMORY_MIB,
        args: [...backends.args, "-incoming", "defer"],
      });
      const loaded = await runVhu(["migrate", "load", "--force", file, `qmp:${target.qmpPath}`]);
      expect(loaded.stderr).toBe("");
      expect(loaded.status).toBe(0);
      await waitForBeats(target, 25);
      expect(target.serial()).not.toMatch(ERRORS);
      expect(beats(target)[0]).toEqual({ nonce, count: last + 1 });
      // The reads go on at the line after the last one.
      const lines = (output: string) => [...output.matchAll(/READ line(\d+)\n/g)].map(([, at]) => Number(at));
      const all = [...lines(firstOutput), ...lines(target.serial())];
      expect(all).toEqual(all.map((_, at) => at));
      expect(lines(target.serial()).length).toBeGreaterThan(1);
      // What the guest wrote to the shared folder has no gap.
      const written = readFileSync(join(dir, "share", "log"), "utf8")
        .trim()
        .split("\n")
        .map(Number);
      expect(written).toEqual(written.map((_, at) => at));
      expect(written.length).toBeGreaterThan(last);
    }
  },
  3 * BOOT_TIMEOUT_MS,
);
