import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const canTap = NetNamespace.isPossible;
// A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that.
const BOOT_TIMEOUT_MS = 120_000;
const IMAGE_BYTES = 128 << 20;
const HTTP_BYTES = 64 << 20;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-all-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startDevice(type: string, name: string, ...options: string[]) {
  const vhu = startVhu([
    ...["device", "run", type, "--socket", join(dir, name), "--log-level", "debug"],
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

const BLK = [
  ...["-smp", "2", "-chardev", "socket,id=c0,path=SOCKET/blk"],
  ...["-device", "vhost-user-blk-pci,chardev=c0,num-queues=2"],
];
const NET_AND_RNG = [
  ...["-chardev", "socket,id=c1,path=SOCKET/net", "-netdev", "vhost-user,id=n0,chardev=c1"],
  ...["-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02"],
  ...["-chardev", "socket,id=c3,path=SOCKET/link", "-netdev", "vhost-user,id=n1,chardev=c3"],
  ...["-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:01:02"],
  ...["-chardev", "socket,id=c2,path=SOCKET/rng", "-device", "vhost-user-rng-pci,chardev=c2"],
];
const inDir = (args: readonly string[]) => args.map((word) => word.replace("SOCKET", dir));

/** The first guest makes the root file system out of its own initramfs. */
const MAKE_ROOT = `mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && cp -a /bin /root-init /mnt/ \\
  && mkdir /mnt/dev /mnt/proc /mnt/sys /mnt/tmp && umount /mnt && echo GUEST-MADE`;

/** The second one leaves the initramfs, which is gone then. */
const SWITCH_ROOT = `mount /dev/vda /mnt && for d in proc sys dev tmp; do mount --move /$d /mnt/$d; done
exec switch_root /mnt /root-init`;

const ROOT_INIT = `#!/bin/sh
export PATH=/bin
grep -q '^/dev/[^ ]* / ext' /proc/mounts && [ ! -e /init ] && echo "GUEST-ROOT $(ls /sys/block/vda/mq | wc -l) queues"
ip link set lo up; ip link set eth0 up; ip address add 10.9.0.2/24 dev eth0
ping -c 3 -A 10.9.0.1 >/dev/null && echo GUEST-PINGS
wget -q -O /file http://10.9.0.1:8080/file && sync && echo 3 >/proc/sys/vm/drop_caches
echo "GUEST-SUM $(sha256sum /file | cut -d' ' -f1)"
ip link set eth1 up; ip address add 10.8.0.2/24 dev eth1
ping -c 3 -A -w 60 10.8.0.1 >/dev/null && echo GUEST-PINGS-PEER
echo "GUEST-PEER-SUM $(wget -q -O - http://10.8.0.1:8080/file | sha256sum | cut -d' ' -f1)"
dd if=/dev/hwrng of=/random bs=512 count=8 iflag=fullblock 2>/dev/null
echo "GUEST-RNG $(cat /sys/class/misc/hw_random/rng_current) $(wc -c </random) $(tr -d '\\\\000' </random | wc -c)"
dmesg | grep -iE "I/O error|EXT4-fs error|Buffer I/O|virtio.*(error|broken|invalid)|remount.*ro" && echo GUEST-ERRORS
sync; mount -o remount,ro / && echo GUEST-DONE
poweroff -f
`;

/** The second guest, at the other end of the stream socket: its QEMU speaks the framing itself. */
const PEER_INIT = `ip link set lo up; ip link set eth0 up; ip address add 10.8.0.1/24 dev eth0
mkdir /tmp/www; dd if=/dev/urandom of=/tmp/www/file bs=1M count=4 2>/dev/null; echo "PEER-SUM $(sha256sum /tmp/www/file | cut -d' ' -f1)"
httpd -p 8080 -h /tmp/www; echo PEER-SERVES; while [ ! -e /tmp/end ]; do sleep 1; done`;

function startPeer() {
  const guest = buildGuest({ dir, name: "peer", modules: ["virtio_net"], init: PEER_INIT });
  const netdev = `stream,id=n0,server=off,addr.type=unix,addr.path=${dir}/stream`;
  const args = ["-netdev", netdev, "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:01:01"];
  return startQemu({ dir, name: "peer", guest, args, memoryMib: 256 });
}

test.skipIf(!peers || !canTap)(
  "one guest with all our devices: its root is a disk with two queues, 64 MiB of HTTP go to it, a second guest answers, hwrng is fed",
  async () => {
    using namespace = new NetNamespace();
    const image = join(dir, "disk");
    writeFileSync(image, "");
    truncateSync(image, IMAGE_BYTES);
    const tap = NetNamespace.interfaceName();
    await using blk = await startDevice("blk", "blk", "--image", image, "--num-queues", "2");
    await using net = await startDevice("net", "net", "--tap", tap);
    await using link = await startDevice("net", "link", "--stream-listen", join(dir, "stream"));
    await using rng = await startDevice("rng", "rng");
    namespace.adopt(tap, "10.9.0.1/24");
    const bytes = randomBytes(HTTP_BYTES);
    mkdirSync(join(dir, "www"));
    writeFileSync(join(dir, "www/file"), bytes);
    const server = namespace.start([
      ...[...peers!.busybox.command, "httpd", "-f", "-p", "8080"],
      ...["-h", join(dir, "www")],
    ]);
    try {
      await using peer = startPeer();
      const files = { "/root-init": ROOT_INIT };
      const modules = ["virtio_blk", "virtio_net", "virtio_rng"];
      {
        const guest = buildGuest({ dir, name: "maker", modules: ["virtio_blk"], files, init: MAKE_ROOT });
        await using qemu = startQemu({ dir, name: "maker", guest, args: inDir(BLK) });
        await qemu.waitForSerial(/GUEST-MADE/, BOOT_TIMEOUT_MS);
        expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      }
      const guest = buildGuest({ dir, modules, init: SWITCH_ROOT });
      await peer.waitForSerial(/PEER-SERVES/, BOOT_TIMEOUT_MS);
      await using qemu = startQemu({ dir, guest, args: inDir([...BLK, ...NET_AND_RNG]) });
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      const serial = qemu.serial();
      expect(serial).toContain("GUEST-ROOT 2 queues");
      expect(serial).toContain("GUEST-PINGS");
      expect(serial).toContain(`GUEST-SUM ${createHash("sha256").update(bytes).digest("hex")}`);
      expect(serial).toContain("GUEST-PINGS-PEER");
      expect(serial).toContain(`GUEST-PEER-SUM ${/PEER-SUM ([0-9a-f]{64})/.exec(peer.serial())?.[1]}`);
      const random = /GUEST-RNG virtio_rng\.0 4096 (\d+)/.exec(serial);
      // Of 4096 random bytes 16 are zero on average; 100 never are.
      expect(Number(random?.[1])).toBeGreaterThan(4000);
      expect(serial).not.toContain("GUEST-ERRORS");
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      for (const daemon of [blk, net, link, rng]) expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    } finally {
      server.kill("SIGKILL");
      await server.exited;
    }
    for (const daemon of [blk, net, link, rng]) expect(await daemon.end("SIGTERM")).toBe(0);
  },
  4 * BOOT_TIMEOUT_MS,
);
