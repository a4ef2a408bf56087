import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import { BlkGuest, BOOT_TIMEOUT_MS, SEES_ERRORS } from "../support/blk-guest.ts";
import { killBlkUnderLoad } from "../support/blk-kills.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const IMAGE_BYTES = 64 << 20;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test.skipIf(!peers)(
  "two guests in one life of the daemon: SeaBIOS looks at the disk, a file system is made, written, read again",
  async () => {
    const disk = new BlkGuest(dir, IMAGE_BYTES);
    const control = join(dir, "control");
    const options = ["--num-queues", "2", "--log-level", "debug", "--control", control];
    await using daemon = await disk.startDaemon(...options);
    {
      await using qemu = disk.boot(
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
    const bytes = readFileSync(disk.image);
    // The ext2 magic number, at 1024 + 56 (Linux fs/ext4/ext4.h, s_magic).
    expect(bytes.readUInt16LE(1080)).toBe(0xef53);
    expect(bytes.indexOf("first guest was here\n".repeat(40))).toBeGreaterThan(0);
    await daemon.waitForStderr(/front-end disconnected/, BOOT_TIMEOUT_MS);
    // SeaBIOS has started and stopped the device once before the kernel started it.
    expect(daemon.stderr().match(/queue starts index=0/g)?.length).toBeGreaterThanOrEqual(2);
    {
      await using qemu = disk.boot(
        "second",
        `mount /dev/vda /mnt && yes "first guest was here" | head -c 3000000 | cmp - /mnt/first \\
  && yes "second guest was here" | head -c 500000 >/mnt/second && sync && umount /mnt && echo "GUEST-DONE"
[ -d /sys/block/vda/mq/1 ] && echo GUEST-HAS-TWO-QUEUES
i=0; while [ $i -lt 600 ] && [ "$(cat /sys/block/vda/size)" = ${IMAGE_BYTES / 512} ]; do sleep 0.1; i=$((i + 1)); done
echo "GUEST-SIZE $(cat /sys/block/vda/size)"
${SEES_ERRORS}`,
        ",packed=on,num-queues=2",
        ["-smp", "2"],
      );
      await qemu.waitForSerial(/GUEST-HAS-TWO-QUEUES/, BOOT_TIMEOUT_MS);
      truncateSync(disk.image, 2 * IMAGE_BYTES);
      expect((await runVhu(["device", "resize", `device:${control}`])).status).toBe(0);
      await qemu.waitForSerial(new RegExp(`GUEST-SIZE ${(2 * IMAGE_BYTES) / 512}\n`), BOOT_TIMEOUT_MS);
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      expect(qemu.serial()).not.toContain("GUEST-ERRORS");
    }
    expect(readFileSync(disk.image).indexOf("second guest was here\n".repeat(40))).toBeGreaterThan(0);
    expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    expect(await daemon.end("SIGTERM")).toBe(0);
    expect(existsSync(disk.socket)).toBe(false);
  },
  5 * BOOT_TIMEOUT_MS,
);

test.skipIf(!peers).each(["", ",packed=on"])(
  "the daemon is killed under load and started again: the guest sees a stall, no error, and every write (%s)",
  async (device) => {
    expect(await killBlkUnderLoad(dir, 4, device)).toMatchObject({ kills: 4, files: 24 });
  },
  5 * BOOT_TIMEOUT_MS,
);
