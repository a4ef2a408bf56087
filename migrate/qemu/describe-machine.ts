import { resolve } from "node:path";
import { ProgramIdentities } from "../backends/mod.ts";
import { LocalPrograms } from "../policy/mod.ts";
import { describeBackends } from "./describe-backends.ts";
import { findHotPlug } from "./hot-plug.ts";
import { machineDisks } from "./machine-disks.ts";
import { queryNetdevs } from "./netdevs.ts";
import type { DescribedQemuMachine, QemuMachine } from "./qemu-machine.ts";
import { qemuProcess } from "./qemu-process.ts";
import { qmpChardevs, qmpCpus, qmpMemorySize, qmpName, qmpStatus, qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { virtioDevices } from "./virtio-devices.ts";

/** Everything that a snapshot says about the machine, asked through the monitor; back-ends are never connected to. */
export async function describeMachine(
  client: QmpClient,
  identities = new ProgramIdentities(new LocalPrograms([])),
): Promise<DescribedQemuMachine> {
  const { status } = await client.request("query-status", { answer: qmpStatus });
  const { name } = await client.request("query-name", { answer: qmpName });
  const cpus = await client.request("query-cpus-fast", { answer: qmpCpus });
  const memory = await client.request("query-memory-size-summary", { answer: qmpMemorySize });
  const process = qemuProcess(client.socketInode, client.peerPid);
  const devices = await virtioDevices(client);
  const connections = await sockets(client);
  const netdevs = await queryNetdevs(client);
  const backends = await describeBackends(devices, connections, netdevs, process, identities);
  const [firstCpu] = cpus;
  return {
    kind: "qemu",
    name: name ?? `qemu ${process?.pid ?? client.peerPid}`,
    version: client.version.text,
    package: client.version.package,
    machineType: await machineType(client),
    cpuType: firstCpu === undefined ? "none" : await qomType(client, firstCpu["qom-path"]),
    cpuCount: cpus.length,
    memoryBytes: memory["base-memory"] + (memory["plugged-memory"] ?? 0),
    runState: status,
    monitor: resolve(client.path),
    ...(process === undefined
      ? {}
      : {
          executable: process.executable,
          commandLine: [...process.commandLine],
          workingFolder: process.workingFolder,
        }),
    ...(await findHotPlug(client, {
      commandLine: process?.commandLine,
      sockets: connections,
      netdevs,
    })),
    virtioDevices: devices,
    sockets: connections,
    backends,
    disks: await machineDisks(client, backends, process?.workingFolder),
  };
}

/** As the stream names it: the QOM type without its suffix. */
export async function machineType(client: QmpClient): Promise<string> {
  return (await qomType(client, "/machine")).replace(/-machine$/, "");
}

async function sockets(client: QmpClient): Promise<QemuMachine["sockets"]> {
  const chardevs = await client.request("query-chardev", { answer: qmpChardevs });
  return chardevs.flatMap(({ label, filename }) => {
    // "unix:PATH,server=on", and "disconnected:" in front while nobody is there.
    const [, path, server] = /^(?:disconnected:)?unix:(.*?)(,server.*)?$/.exec(filename) ?? [];
    if (path === undefined) return [];
    return [{ chardev: label, path, ...(server === undefined ? {} : { listens: true }) }];
  });
}

async function qomType(client: QmpClient, path: string): Promise<string> {
  return client.request("qom-get", { answer: qmpText, arguments: { path, property: "type" } });
}
