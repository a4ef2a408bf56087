import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectUnix } from "../../src/sys/mod.ts";
import { Peer } from "../devices/net/stream-peer.ts";
import { buildGuest, requirePeers, startQemu } from "../peers/mod.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
// A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that.
const BOOT_TIMEOUT_MS = 120_000;
const POLL_MS = 20;
const MAC = "52:54:00:00:00:02";
const ETHERTYPE = { arp: 0x0806, rarp: 0x8035 } as const;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-nm-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** One command on a monitor of its own; what it returns. */
function qmp(path: string, execute: string, args: object = {}): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = "";
    socket.on("error", reject);
    socket.on("connect", () => {
      socket.write(`${JSON.stringify({ execute: "qmp_capabilities" })}\n`);
      socket.write(`${JSON.stringify({ execute, arguments: args, id: 1 })}\n`);
    });
    socket.on("data", (data) => {
      text += data;
      const answer = text.split("\r\n").find((line) => line.includes('"id": 1'));
      if (answer === undefined) return;
      socket.destroy();
      const parsed = JSON.parse(answer);
      if (parsed.error === undefined) resolve(parsed.return);
      else reject(new Error(parsed.error.desc));
    });
  });
}

async function until<T>(what: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const end = performance.now() + BOOT_TIMEOUT_MS;
  for (;;) {
    const value = await what();
    if (value !== undefined) return value;
    if (performance.now() > end) throw new Error("it did not happen in time");
    await Bun.sleep(POLL_MS);
  }
}

/** One of the two hosts: a daemon, whose network is the test's, and the arguments for its QEMU. */
async function startHost(name: string, mac: string) {
  const [socket, stream] = [join(dir, `${name}.s`), join(dir, `${name}.n`)];
  const options = ["--socket", socket, "--stream-listen", stream, "--mac", mac, "--log-level", "debug"];
  const daemon = startVhu(["device", "run", "net", ...options]);
  await daemon.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
  const peer = new Peer(connectUnix(stream));
  const args = [
    ...["-chardev", `socket,id=c0,path=${socket}`, "-netdev", "vhost-user,id=n0,chardev=c0"],
    // A guest that cannot announce itself: then QEMU asks the back-end to.
    ...["-device", `virtio-net-pci,netdev=n0,mac=${MAC},guest_announce=off`],
  ];
  /** The next frame of this type that the guest, or its device, has sent. */
  const nextOf = (type: number) =>
    until(() => {
      for (let frame = peer.read(); frame !== undefined; frame = peer.read()) {
        if (((frame[12]! << 8) | frame[13]!) === type) return frame;
      }
      return undefined;
    });
  return { daemon, args, peer, nextOf };
}

/** Two hosts, a guest that asks for 10.9.0.1 on the first, and its migration, which has ended. */
async function migrate(
  macs: readonly [string, string],
  check: (end: {
    source: Awaited<ReturnType<typeof startHost>>;
    target: Awaited<ReturnType<typeof startHost>>;
    info: Record<string, unknown>;
  }) => Promise<void>,
) {
  const source = await startHost("a", macs[0]);
  const target = await startHost("b", macs[1]);
  const uri = `unix:${join(dir, "m")}`;
  const init = `ip link set lo up; ip link set eth0 up; ip address add 10.9.0.2/24 dev eth0; echo GUEST-UP; ping 10.9.0.1 >/dev/null`;
  const guest = buildGuest({ dir, modules: ["virtio_net"], init });
  try {
    await using qemu = startQemu({ dir, name: "qa", guest, args: source.args });
    await using other = startQemu({ dir, name: "qb", guest, args: [...target.args, "-incoming", "defer"] });
    await qemu.waitForSerial(/GUEST-UP/, BOOT_TIMEOUT_MS);
    await source.nextOf(ETHERTYPE.arp);
    // Without it the source takes what the destination refused for a success.
    const capabilities = [{ capability: "return-path", state: true }];
    for (const { qmpPath } of [qemu, other]) await qmp(qmpPath, "migrate-set-capabilities", { capabilities });
    await qmp(other.qmpPath, "migrate-incoming", { uri });
    await qmp(qemu.qmpPath, "migrate", { uri });
    const info = await until(async () => {
      const now = await qmp(qemu.qmpPath, "query-migrate");
      return now.status === "completed" || now.status === "failed" ? now : undefined;
    });
    await check({ source, target, info });
  } finally {
    for (const { daemon, peer } of [source, target]) {
      peer[Symbol.dispose]();
      await daemon[Symbol.asyncDispose]();
    }
  }
}

test.skipIf(!peers)(
  "QEMU migrates a guest with our net device: the new place is announced, and the guest goes on",
  () =>
    migrate([MAC, MAC], async ({ source, target, info }) => {
      expect(info.status).toBe("completed");
      console.log(`migration of a guest with our net device: downtime ${info.downtime} ms`);
      const rarp = await target.nextOf(ETHERTYPE.rarp);
      expect(Buffer.from(rarp.subarray(6, 12)).toString("hex")).toBe(MAC.replaceAll(":", ""));
      await target.nextOf(ETHERTYPE.arp);
      for (const { daemon } of [source, target]) expect(daemon.stderr()).not.toMatch(/ (warn|error) /);
    }),
  4 * BOOT_TIMEOUT_MS,
);

// The state goes through our pipe: else nobody would have noticed.
test.skipIf(!peers)(
  "a device with another MAC address refuses the state, and the guest goes on where it was",
  () =>
    migrate([MAC, "52:54:00:00:00:77"], async ({ source, target, info }) => {
      expect(info.status).toBe("failed");
      expect(target.daemon.stderr()).toContain(MAC);
      // What had been sent before is read first; more comes for as long as the guest runs.
      source.peer.skipAll();
      await source.nextOf(ETHERTYPE.arp);
    }),
  4 * BOOT_TIMEOUT_MS,
);
