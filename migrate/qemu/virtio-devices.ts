import type { QemuMachine } from "./qemu-machine.ts";
import { qmpText, qmpVirtioDevices, qmpVirtioStatus } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";

type VirtioDevice = QemuMachine["virtioDevices"][number];

/**
 * The vhost-user front-ends of which QEMU can tell how they are. Asked for another one while its guest uses it, QEMU 10.0.2 ends by
 * SIGSEGV (tried with vhost-user-rng; x-query-virtio-status calls get_vhost, which those made of vhost-user-base do not have).
 */
const ASKED = ["vhost-user-blk", "vhost-user-fs"];

/** The virtio devices with what the guest has accepted, asked of QEMU alone. */
export async function virtioDevices(client: QmpClient): Promise<VirtioDevice[]> {
  const found: VirtioDevice[] = [];
  try {
    for (const { path } of await client.request("x-query-virtio", { answer: qmpVirtioDevices })) {
      const type = ((await property(client, path, "type")) ?? "unknown").replace(/-device$/, "");
      const connection = await connectionOf(client, path, type);
      if (type === "unknown" || (type.startsWith("vhost-") && !ASKED.includes(type))) {
        found.push({ type, path, features: [], ...connection });
        continue;
      }
      const status = await client.request("x-query-virtio-status", {
        answer: qmpVirtioStatus,
        arguments: { path },
      });
      const { transports, "dev-features": own = [] } = status["guest-features"];
      // "VIRTIO_F_VERSION_1: Device compliant with …": the name is enough.
      const features = [...transports, ...own].map((text) => text.split(":")[0] as string);
      const protocols = status["vhost-dev"]?.["protocol-features"]?.protocols.map(
        (text) => text.split(":")[0] as string,
      );
      const agreed = protocols === undefined ? {} : { protocolFeatures: protocols };
      found.push({ type, path, features, ...agreed, ...connection });
    }
  } catch (error) {
    // An experimental command: a QEMU without it still saves.
    if (!(error instanceof QmpError)) throw error;
  }
  return found;
}

async function connectionOf(client: QmpClient, path: string, type: string): Promise<Partial<VirtioDevice>> {
  if (type === "virtio-net") return named("netdev", await property(client, path, "netdev"));
  if (type.startsWith("vhost-user-")) return named("chardev", await property(client, path, "chardev"));
  return {};
}

function named(key: "netdev" | "chardev", value: string | undefined): Partial<VirtioDevice> {
  return value === undefined || value === "" ? {} : { [key]: value };
}

async function property(client: QmpClient, path: string, name: string): Promise<string | undefined> {
  try {
    return await client.request("qom-get", { answer: qmpText, arguments: { path, property: name } });
  } catch (error) {
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}
