import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runVhu } from "../bin/run-vhu.ts";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";
import { BOOT_TIMEOUT_MS, livingGuest, startListening, waitForBeats } from "../support/living-guest.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-rng-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

// Two reads of the same size: what they give is different, and not all of one byte.
const INIT = `cat /sys/class/misc/hw_random/rng_current
for i in 1 2; do dd if=/dev/hwrng bs=512 count=8 iflag=fullblock of=/tmp/$i 2>/dev/null; done
[ "$(wc -c </tmp/1)" = 4096 ] && [ "$(wc -c </tmp/2)" = 4096 ] && ! cmp -s /tmp/1 /tmp/2 && echo GUEST-READ
echo "GUEST-ZEROS $(tr -d '\\000' </tmp/1 | wc -c)"`;

test.skipIf(!peers)(
  "a look at a VM with vhost-user-rng does not end it, as QEMU's own look at that device would; a save is refused by name",
  async () => {
    const socket = join(dir, "s");
    await using daemon = startVhu(["device", "run", "rng", "--socket", socket]);
    await daemon.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
    const each = "dd if=/dev/hwrng bs=64 count=1 of=/dev/null 2>/dev/null || echo FAILED";
    const guest = livingGuest({ dir, modules: ["virtio_rng"], each });
    const args = ["-chardev", `socket,id=c0,path=${socket}`, "-device", "vhost-user-rng-pci,chardev=c0"];
    await using qemu = await startListening({ dir, guest, memoryMib: 256, args });
    await waitForBeats(qemu, 2);
    const check = await runVhu(["migrate", "check", `qmp:${qemu.qmpPath}`]);
    expect(check).toMatchObject({ status: 4 });
    expect(check.stdout).toMatch(/FAILED +migration +non-migratable device: .*vhost-user-rng/);
    expect(check.stdout).toMatch(/passed +back-end c0 +rng at /);
    const env = { XDG_STATE_HOME: join(dir, "state") };
    const saved = await runVhu(["migrate", "save", `qmp:${qemu.qmpPath}`, join(dir, "vm.vhu")], { env });
    expect(saved).toMatchObject({ status: 4 });
    expect(saved.stderr).toContain("vhost-user-rng");
    await waitForBeats(qemu, 2);
    expect(qemu.serial()).not.toContain("FAILED");
  },
  3 * BOOT_TIMEOUT_MS,
);

test.skipIf(!peers).each(["", ",packed=on"])(
  "the guest's hwrng is fed by our device, each time with other bytes (%s)",
  async (device) => {
    const socket = join(dir, "s");
    await using daemon = startVhu(["device", "run", "rng", "--socket", socket, "--log-level", "debug"]);
    await daemon.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
    const guest = buildGuest({ dir, modules: ["virtio_rng"], init: INIT });
    await using qemu = startQemu({
      dir,
      guest,
      args: ["-chardev", `socket,id=c0,path=${socket}`, "-device", `vhost-user-rng-pci,chardev=c0${device}`],
    });
    await qemu.waitForSerial(/GUEST-READ/, BOOT_TIMEOUT_MS);
    const zeros = await qemu.waitForSerial(/GUEST-ZEROS \d+/, BOOT_TIMEOUT_MS);
    // Of 4096 random bytes 16 are zero on average; 100 never are.
    expect(Number(zeros.split(" ")[1])).toBeGreaterThan(4000);
    expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
    expect(qemu.serial()).toContain("virtio_rng.0");
    expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    expect(await daemon.end("SIGTERM")).toBe(0);
  },
  3 * BOOT_TIMEOUT_MS,
);
