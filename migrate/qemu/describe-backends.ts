import {
  type BackendRecord,
  backendBehind,
  type ProcessFacts,
  type ProgramIdentities,
} from "../backends/mod.ts";
import { parseOptionList } from "../policy/mod.ts";
import type { Netdev } from "./netdevs.ts";
import type { QemuMachine } from "./qemu-machine.ts";

/**
 * The daemons behind a machine's vhost-user devices: which process serves each, and with what. Nobody is connected to.
 *
 * @param qemu Without it the daemons are not looked for.
 */
export async function describeBackends(
  devices: QemuMachine["virtioDevices"],
  sockets: QemuMachine["sockets"],
  netdevs: readonly Netdev[] | undefined,
  qemu: ProcessFacts | undefined,
  identities: ProgramIdentities,
): Promise<BackendRecord[]> {
  const listed = netdevs?.map(({ id, chardev }) => [id, chardev] as const);
  const chardevs = listed === undefined ? netdevChardevs(qemu?.commandLine ?? []) : new Map(listed);
  const records = devices.map(async ({ type, chardev, netdev, features, protocolFeatures }) => {
    const label = chardev ?? (netdev === undefined ? undefined : chardevs.get(netdev));
    const socket = sockets.find((candidate) => candidate.chardev === label);
    if (label === undefined || socket === undefined) return [];
    const daemon = qemu === undefined ? undefined : backendBehind(qemu, socket.path);
    const identity = daemon === undefined ? {} : await identities.of(daemon);
    return [
      {
        chardev: label,
        socket: socket.path,
        type: type.replace(/^(?:vhost-user|virtio)-/, ""),
        features,
        ...(protocolFeatures === undefined ? {} : { protocolFeatures }),
        ...(socket.listens ? { connects: true } : {}),
        ...(daemon === undefined ? {} : { ...daemon, commandLine: [...daemon.commandLine] }),
        ...Object.fromEntries(Object.entries(identity).filter(([, value]) => value !== undefined)),
      },
    ];
  });
  return (await Promise.all(records)).flat();
}

/** The chardev of each vhost-user netdev, by the command line of a QEMU that does not list them. */
function netdevChardevs(commandLine: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const [at, word] of commandLine.entries()) {
    if (!/^--?netdev$/.test(word)) continue;
    const [kind, ...pairs] = parseOptionList(commandLine[at + 1] ?? "") ?? [];
    const value = (key: string) => pairs.find((pair) => pair.key === key)?.value;
    const [id, chardev] = [value("id"), value("chardev")];
    if (kind?.value === "vhost-user" && id !== undefined && chardev !== undefined) found.set(id, chardev);
  }
  return found;
}
