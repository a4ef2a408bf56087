import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const canTap = NetNamespace.isPossible;
// A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that.
const BOOT_TIMEOUT_MS = 120_000;
const HTTP_BYTES = 64 << 20;

let dir: string;
let socket: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-net-"));
  socket = join(dir, "net.sock");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startNet(...options: string[]) {
  const vhu = startVhu(["device", "run", "net", "--socket", socket, "--log-level", "debug", ...options]);
  await vhu.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  return vhu;
}

function vhostUser(netdev = "", device = ""): string[] {
  return [
    ...["-chardev", `socket,id=c0,path=${socket},reconnect-ms=200`],
    ...["-netdev", `vhost-user,id=n0,chardev=c0${netdev}`],
    ...["-device", `virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02${device}`],
  ];
}

const address = (last: number) =>
  `ip link set lo up; ip link set eth0 up; ip address add 10.9.0.${last}/24 dev eth0`;
/** Downloads `bytes` and says how many hundredths of a second that took. */
const download = (bytes: number) => `start=$(cut -d' ' -f1 /proc/uptime | tr -d .)
wget -q -O /tmp/file http://10.9.0.1:8080/file && end=$(cut -d' ' -f1 /proc/uptime | tr -d .)
[ "$(wc -c </tmp/file)" = ${bytes} ] && echo "GUEST-TOOK $((end - start))"
echo "GUEST-SUM $(sha256sum /tmp/file | cut -d' ' -f1)"`;

function serveFile(
  namespace: NetNamespace,
  sizeBytes: number,
): { readonly sum: string; stop(): Promise<void> } {
  const bytes = randomBytes(sizeBytes);
  const folder = join(dir, "www");
  mkdirSync(folder);
  writeFileSync(join(folder, "file"), bytes);
  const server = namespace.start([...peers!.busybox.command, "httpd", "-f", "-p", "8080", "-h", folder]);
  return {
    sum: createHash("sha256").update(bytes).digest("hex"),
    async stop() {
      server.kill("SIGKILL");
      await server.exited;
    },
  };
}

test.skipIf(!peers || !canTap).each([
  { name: "one pair, split rings", daemon: [], netdev: "", device: "", cpus: "1" },
  {
    name: "two pairs, packed rings",
    daemon: ["--queue-pairs", "2"],
    netdev: ",queues=2",
    device: ",mq=on,vectors=6,packed=on",
    cpus: "2",
  },
])(
  "through a tap into a network namespace: ping, and HTTP of 64 MiB ($name)",
  async ({ daemon: options, netdev, device, cpus }) => {
    using namespace = new NetNamespace();
    const tap = NetNamespace.interfaceName();
    await using daemon = await startNet("--tap", tap, ...options);
    namespace.adopt(tap, "10.9.0.1/24");
    const server = serveFile(namespace, HTTP_BYTES);
    try {
      const init = `${address(2)}
echo "GUEST-FEATURES $(cat /sys/class/net/eth0/device/features)"
ping -c 3 -A 10.9.0.1 >/dev/null && echo GUEST-PINGS
${download(HTTP_BYTES)}
for d in $(seq 1 3); do wget -q -O /dev/null http://10.9.0.1:8080/file & done; wait; echo GUEST-THREE
echo GUEST-DONE`;
      const guest = buildGuest({ dir, modules: ["virtio_net"], init });
      await using qemu = startQemu({ dir, guest, args: ["-smp", cpus, ...vhostUser(netdev, device)] });
      await qemu.waitForSerial(/GUEST-PINGS/, BOOT_TIMEOUT_MS);
      await qemu.waitForSerial(new RegExp(`GUEST-SUM ${server.sum}`), BOOT_TIMEOUT_MS);
      await qemu.waitForSerial(/GUEST-DONE/, BOOT_TIMEOUT_MS);
      const [, features = ""] = /GUEST-FEATURES ([01]+)/.exec(qemu.serial()) ?? [];
      // CSUM, GUEST_CSUM, TSO of both versions and directions, MRG_RXBUF.
      expect([0, 1, 7, 8, 11, 12, 15].map((bit) => features[bit]).join("")).toBe("1111111");
      const hundredths = Number(/GUEST-TOOK (\d+)/.exec(qemu.serial())?.[1]);
      console.log(
        `64 MiB over HTTP through ${tap}: ${(HTTP_BYTES / 1e6 / (hundredths / 100)).toFixed(1)} MB/s`,
      );
      expect(await qemu.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
      expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    } finally {
      await server.stop();
    }
    expect(await daemon.end("SIGTERM")).toBe(0);
  },
  4 * BOOT_TIMEOUT_MS,
);
