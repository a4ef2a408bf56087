import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";
import { killInDataCall } from "../support/kill-in-syscall.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
// A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that.
const BOOT_TIMEOUT_MS = 120_000;
const IMAGE_BYTES = 64 << 20;

let dir: string;
let image: string;
let socket: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
  image = join(dir, "disk.raw");
  socket = join(dir, "blk.sock");
  writeFileSync(image, "");
  truncateSync(image, IMAGE_BYTES);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startBlk(...options: string[]) {
  const vhu = startVhu([
    "device",
    "run",
    "blk",
    "--socket",
    socket,
    "--image",
    image,
    "--id",
    "VHU-1",
    ...options,
  ]);
  try {
    await vhu.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
    return vhu;
  } catch (error) {
    await vhu[Symbol.asyncDispose]();
    throw error;
  }
}

function boot(name: string, init: string, device: string, args: readonly string[] = []) {
  const guest = buildGuest({ dir, name, modules: ["virtio_blk"], init });
  const chardev = ["-chardev", `socket,id=c0,path=${socket},reconnect-ms=200`];
  const disk = ["-device", `vhost-user-blk-pci,chardev=c0${device}`];
  return startQemu({ dir, name, guest, args: [...args, ...chardev, ...disk] });
}

// Errors that a guest's block layer or file system would log.
const SEES_ERRORS = `dmesg | grep -iE "I/O error|EXT4-fs error|Buffer I/O|virtio.*(error|broken|invalid)|remount.*ro" && echo GUEST-ERRORS`;

test.skipIf(!peers)(
  "two guests in one life of the daemon: SeaBIOS looks at the disk, a file system is made, written, read again",
  async () => {
    await using daemon = await startBlk("--num-queues", "2", "--log-level", "debug");
    {
      await using qemu = boot(
        "first",
        `[ "$(cat /sys/block/vda/serial)" = VHU-1 ] && [ "$(cat /sys/block/vda/size)" = ${IMAGE_BYTES / 512} ] && echo GUEST-SEES-IT
mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && yes "first guest was here" | head -c 3000000 >/mnt/first && sync \\
  && umount /mnt && echo "GUEST-DONE"
${SEES_ERRORS}`,
        "",
      );
      await qemu.waitForSerial(/GUEST-SEES-IT/, BOOT_TIMEOUT_MS);
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      expect(qemu.serial()).not.toContain("GUEST-ERRORS");
    }
    const disk = readFileSync(image);
    // The ext2 magic number, at 1024 + 56 (Linux fs/ext4/ext4.h, s_magic).
    expect(disk.readUInt16LE(1080)).toBe(0xef53);
    expect(disk.indexOf("first guest was here\n".repeat(40))).toBeGreaterThan(0);
    await daemon.waitForStderr(/front-end disconnected/, BOOT_TIMEOUT_MS);
    // SeaBIOS has started and stopped the device once before the kernel started it.
    expect(daemon.stderr().match(/queue starts index=0/g)?.length).toBeGreaterThanOrEqual(2);
    {
      await using qemu = boot(
        "second",
        `mount /dev/vda /mnt && yes "first guest was here" | head -c 3000000 | cmp - /mnt/first \\
  && yes "second guest was here" | head -c 500000 >/mnt/second && sync && umount /mnt && echo "GUEST-DONE"
[ -d /sys/block/vda/mq/1 ] && echo GUEST-HAS-TWO-QUEUES
${SEES_ERRORS}`,
        ",packed=on,num-queues=2",
        ["-smp", "2"],
      );
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      expect(qemu.serial()).toContain("GUEST-HAS-TWO-QUEUES");
      expect(qemu.serial()).not.toContain("GUEST-ERRORS");
    }
    expect(readFileSync(image).indexOf("second guest was here\n".repeat(40))).toBeGreaterThan(0);
    expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    expect(await daemon.end("SIGTERM")).toBe(0);
    expect(existsSync(socket)).toBe(false);
  },
  5 * BOOT_TIMEOUT_MS,
);

const FILES = 24;

test.skipIf(!peers).each(["", ",packed=on"])(
  "the daemon is killed under load and started again: the guest sees a stall, no error, and every write (%s)",
  async (device) => {
    let daemon = await startBlk("--log-level", "debug");
    try {
      await using qemu = boot(
        "killed",
        `mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && i=1
while [ ! -e /tmp/done ]; do dd if=/dev/zero of=/mnt/load bs=4k count=50 conv=fsync 2>/dev/null; done &
while [ $i -le ${FILES} ]; do
  yes "block of file $i" | head -c 700000 >/mnt/$i && sync && echo "GUEST-WROTE $i"; i=$((i + 1))
done
touch /tmp/done; wait; umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount /dev/vda /mnt && i=1
while [ $i -le ${FILES} ]; do
  yes "block of file $i" | head -c 700000 | cmp - /mnt/$i || echo GUEST-ERRORS; i=$((i + 1))
done
umount /mnt && echo GUEST-DONE
${SEES_ERRORS}`,
        device,
      );
      for (const count of [2, 6, 10, 14]) {
        await qemu.waitForSerial(new RegExp(`GUEST-WROTE ${count}\n`), BOOT_TIMEOUT_MS);
        await killInDataCall(daemon.process.pid, BOOT_TIMEOUT_MS);
        await daemon[Symbol.asyncDispose]();
        daemon = await startBlk("--log-level", "debug");
        // What it had begun and not answered is in the inflight region, and is done again.
        await daemon.waitForStderr(/queue starts .*toResubmit=[1-9]/, BOOT_TIMEOUT_MS);
      }
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      expect(qemu.serial()).not.toContain("GUEST-ERRORS");
      const disk = readFileSync(image);
      for (let i = 1; i <= FILES; i++)
        expect(disk.indexOf(`block of file ${i}\n`.repeat(40))).toBeGreaterThan(0);
      expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    } finally {
      await daemon[Symbol.asyncDispose]();
    }
  },
  5 * BOOT_TIMEOUT_MS,
);
