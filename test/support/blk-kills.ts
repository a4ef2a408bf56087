import { readFileSync } from "node:fs";
import { BlkGuest, BOOT_TIMEOUT_MS, SEES_ERRORS } from "./blk-guest.ts";
import { killInDataCall } from "./kill-in-syscall.ts";

const FILE_BYTES = 700_000;
const FILES_PER_KILL = 4;
/** Written after the last kill. */
const LAST_FILES = 8;

export interface KillReport {
  readonly kills: number;
  readonly files: number;
  /** Requests that the killed daemons had begun and not answered, and their successors did again. */
  readonly resubmitted: number;
}

/**
 * A guest writes files, and the daemon of its disk is killed again and again inside a read, a write or a flush. Throws when
 * the guest sees an error, or anything that it has synced is not on the disk.
 */
export async function killBlkUnderLoad(dir: string, kills: number, device = ""): Promise<KillReport> {
  const files = kills * FILES_PER_KILL + LAST_FILES;
  // The file system's own needs are a small part of the rest.
  const disk = new BlkGuest(dir, 2 * files * FILE_BYTES + (32 << 20));
  let resubmitted = 0;
  let daemon = await disk.startDaemon("--log-level", "debug");
  try {
    await using qemu = disk.boot("killed", guestInit(files), device);
    for (let kill = 0; kill < kills; kill++) {
      const written = 2 + kill * FILES_PER_KILL;
      await qemu.waitForSerial(new RegExp(`GUEST-WROTE ${written}\n`), BOOT_TIMEOUT_MS);
      await killInDataCall(daemon.process.pid, BOOT_TIMEOUT_MS);
      await daemon[Symbol.asyncDispose]();
      daemon = await disk.startDaemon("--log-level", "debug");
      // What it had begun and not answered is in the inflight region, and is done again.
      const line = await daemon.waitForStderr(/queue starts .*toResubmit=[1-9]\d*/, BOOT_TIMEOUT_MS);
      resubmitted += Number(/\d+$/.exec(line)![0]);
    }
    await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
    const status = await qemu.waitForExit(BOOT_TIMEOUT_MS);
    if (status !== 0 || qemu.serial().includes("GUEST-ERRORS"))
      throw new Error(`QEMU ended with ${status}; the guest wrote:\n${qemu.serial()}`);
    if (/ (warn|error) /.test(daemon.stderr())) throw new Error(`the daemon complained: ${daemon.stderr()}`);
  } finally {
    await daemon[Symbol.asyncDispose]();
  }
  const bytes = readFileSync(disk.image);
  for (let file = 1; file <= files; file++) {
    if (bytes.indexOf(`block of file ${file}\n`.repeat(40)) < 0) throw new Error(`file ${file} is lost`);
  }
  return { kills, files, resubmitted };
}

function guestInit(files: number): string {
  return `mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && i=1
while [ ! -e /tmp/done ]; do dd if=/dev/zero of=/mnt/load bs=4k count=50 conv=fsync 2>/dev/null; done &
while [ $i -le ${files} ]; do
  yes "block of file $i" | head -c ${FILE_BYTES} >/mnt/$i && sync && echo "GUEST-WROTE $i"; i=$((i + 1))
done
touch /tmp/done; wait; umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount /dev/vda /mnt && i=1
while [ $i -le ${files} ]; do
  yes "block of file $i" | head -c ${FILE_BYTES} | cmp - /mnt/$i || echo GUEST-ERRORS; i=$((i + 1))
done
umount /mnt && echo GUEST-DONE
${SEES_ERRORS}`;
}
