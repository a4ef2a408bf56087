import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
// A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that.
const BOOT_TIMEOUT_MS = 120_000;
const TEXT = "written by the guest";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

test.skipIf(!peers)(
  "a guest boots under TCG, makes a file system on a plain virtio disk, and its bytes are on the host",
  async () => {
    const dir = mkdtempSync(join(tmpdir(), "vhu-guest-"));
    folders.push(dir);
    const image = join(dir, "disk.raw");
    writeFileSync(image, "");
    truncateSync(image, 16 << 20);
    const guest = buildGuest({
      dir,
      modules: ["virtio_blk"],
      init: `mke2fs -F /dev/vda >/dev/null && mount -t ext2 /dev/vda /mnt && cat /text >/mnt/file && sync \\
        && umount /mnt && echo "GUEST-DONE $(uname -r)"`,
      files: { "/text": TEXT },
    });
    await using qemu = startQemu({
      dir,
      guest,
      args: ["-drive", `if=virtio,format=raw,file=${image}`],
    });
    expect(await qemu.waitForSerial(/GUEST-DONE \S+/, BOOT_TIMEOUT_MS)).toContain("cloud-amd64");
    expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
    const disk = readFileSync(image);
    // The ext2 magic number, at 1024 + 56 (Linux fs/ext4/ext4.h, s_magic).
    expect(disk.readUInt16LE(1080)).toBe(0xef53);
    expect(disk.indexOf(TEXT)).toBeGreaterThan(0);
  },
  2 * BOOT_TIMEOUT_MS,
);
