import { z } from "zod";
import { deviceKeys, formatOptionList, type OptionPair } from "../policy/mod.ts";
import { memoryBackendPairs } from "./hot-plugged-memory.ts";
import type { Netdev } from "./netdevs.ts";
import type { QemuMachine } from "./qemu-machine.ts";
import { qmpBlockNodes, qmpChardevs, qmpDeviceProperties, qmpObjects, qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { idOf } from "./with-hot-plug.ts";

/** What a machine has become since its command line. */
export interface HotPlug {
  /** Arguments that make what was plugged in. Data, as the command line is. */
  readonly added: string[];
  /** Ids of devices that were taken out. */
  readonly removed: string[];
  /** What is on the command line and is gone, that is no device. */
  readonly removedParts: { readonly option: string; readonly id: string }[];
  /** What was plugged in and cannot be said in arguments, by name. */
  readonly notRebuilt: string[];
}

interface Recorded {
  readonly commandLine: readonly string[] | undefined;
  readonly sockets: QemuMachine["sockets"];
  readonly netdevs: readonly Netdev[] | undefined;
}

const PERIPHERAL = "/machine/peripheral";
const FORMATS = ["raw", "qcow2"];

/**
 * Compares QEMU's trees of devices and block nodes with its command line. A QEMU that is started from the command line alone
 * would have other devices, and refuse the state.
 */
export async function findHotPlug(client: QmpClient, machine: Recorded): Promise<HotPlug> {
  const words = machine.commandLine ?? [];
  if (words.length === 0) return { added: [], removed: [], removedParts: [], notRebuilt: [] };
  const named = await children(client, PERIPHERAL);
  const devices = [...named, ...(await children(client, "/machine/peripheral-anon"))];
  const finder = new Finder(client, machine);
  for (const device of devices) {
    if (await isHotPlugged(client, device.path)) await finder.add(device);
  }
  const ids = words.flatMap((word, at) => (words[at - 1] === "-device" ? (idOf(word) ?? []) : []));
  const present = new Set(named.map(({ name }) => name));
  return {
    added: finder.added,
    removed: ids.filter((id) => !present.has(id)),
    removedParts: await findRemovedParts(client, machine),
    notRebuilt: finder.notRebuilt,
  };
}

interface Device {
  readonly name: string;
  readonly type: string;
  readonly path: string;
}

class Finder {
  readonly added: string[] = [];
  readonly notRebuilt: string[] = [];

  constructor(
    readonly client: QmpClient,
    readonly machine: Recorded,
  ) {}

  async add(device: Device): Promise<void> {
    const { type, name, path } = device;
    const keys = deviceKeys(type);
    if (keys === undefined || path.startsWith("/machine/peripheral-anon/")) {
      this.notRebuilt.push(`${type} ${keys === undefined ? name : "without an id"}`);
      return;
    }
    const pairs: OptionPair[] = [
      { key: "", value: type },
      { key: "id", value: name },
    ];
    const bus = await text(this.client, path, "parent_bus");
    if (bus !== undefined && bus !== "") pairs.push({ key: "bus", value: bus.split("/").at(-1) as string });
    const properties = await this.#properties(type, path, keys);
    for (const pair of properties) {
      const obstacle = await this.#addWhatItNeeds(pair);
      if (obstacle !== undefined) {
        this.notRebuilt.push(`${type} ${name}: ${obstacle}`);
        return;
      }
    }
    this.added.push("-device", formatOptionList([...pairs, ...properties]));
  }

  /** Those that differ from what a new device has. */
  async #properties(type: string, path: string, keys: ReadonlySet<string>): Promise<OptionPair[]> {
    const known = await this.client.request("device-list-properties", {
      answer: qmpDeviceProperties,
      arguments: { typename: type },
    });
    const pairs: OptionPair[] = [];
    for (const { name, "default-value": usual } of known) {
      if (!keys.has(name) || name === "id" || name === "bus") continue;
      const value = await property(this.client, path, name);
      if (name === "romfile") {
        // One without a folder is QEMU's own for this device, which it takes by itself.
        if (value === "" || (typeof value === "string" && value.includes("/"))) {
          pairs.push({ key: name, value });
        }
        continue;
      }
      if (value === undefined || value === null || value === "" || value === usual) continue;
      const written = writtenAs(type, name, value);
      // -1 is "none" to a boot index.
      if (written !== undefined && !(name === "bootindex" && value === -1))
        pairs.push({ key: name, value: written });
    }
    return pairs;
  }

  async #addWhatItNeeds({ key, value }: OptionPair): Promise<string | undefined> {
    const isGiven = (option: string) =>
      (this.machine.commandLine ?? []).some(
        (word, at, words) => words[at - 1] === option && idOf(word) === value,
      );
    switch (key) {
      case "drive":
        return isGiven("-blockdev") || isGiven("-drive") ? undefined : this.#addNode(value);
      case "chardev":
        return isGiven("-chardev") ? undefined : this.#addSocket(value);
      case "netdev":
        return isGiven("-netdev") ? undefined : this.#addNetdev(value);
      case "memdev":
        return isGiven("-object") ? undefined : this.#addMemory(value);
      case "iothread":
        return isGiven("-object") ? undefined : this.#addOnce("-object", `iothread,id=${value}`);
      default:
        return undefined;
    }
  }

  async #addNode(name: string): Promise<string | undefined> {
    const nodes = await this.client.request("query-named-block-nodes", {
      answer: qmpBlockNodes,
      arguments: { flat: true },
    });
    const node = nodes.find((candidate) => candidate["node-name"] === name);
    if (node === undefined || !node.file.startsWith("/")) return `its drive ${name} is no file`;
    const readOnly = node.ro ? [{ key: "read-only", value: "on" }] : [];
    const id = { key: "node-name", value: name };
    if (node.drv === "file") {
      const file = { key: "filename", value: node.file };
      return this.#addOnce("-blockdev", list({ key: "driver", value: "file" }, id, file, ...readOnly));
    }
    if (!FORMATS.includes(node.drv)) return `its drive ${name} is ${node.drv}`;
    const driver = { key: "driver", value: node.drv };
    const file = [
      { key: "file.driver", value: "file" },
      { key: "file.filename", value: node.file },
    ];
    return this.#addOnce("-blockdev", list(driver, id, ...file, ...readOnly));
  }

  /** QEMU tells all of a vhost-user netdev; of others it leaves out what they were made with. */
  #addNetdev(id: string): string | undefined {
    const netdev = this.machine.netdevs?.find((each) => each.id === id);
    if (netdev?.chardev === undefined) {
      return `QEMU does not tell how its netdev ${id}${netdev === undefined ? "" : ` (${netdev.type})`} was made`;
    }
    const isGiven = (this.machine.commandLine ?? []).some(
      (word, at, words) => words[at - 1] === "-chardev" && idOf(word) === netdev.chardev,
    );
    const obstacle = isGiven ? undefined : this.#addSocket(netdev.chardev);
    if (obstacle !== undefined) return obstacle;
    const queues = netdev.queueCount > 1 ? [{ key: "queues", value: String(netdev.queueCount) }] : [];
    return this.#addOnce(
      "-netdev",
      list(
        { key: "", value: "vhost-user" },
        { key: "id", value: id },
        { key: "chardev", value: netdev.chardev },
        ...queues,
      ),
    );
  }

  async #addMemory(id: string): Promise<string | undefined> {
    const path = `/objects/${id}`;
    const object = (await children(this.client, "/objects")).find(({ name }) => name === id);
    if (object === undefined) return `its memory ${id} is not to be seen`;
    const properties = await this.client.request("qom-list", { answer: qmpObjects, arguments: { path } });
    const values = new Map<string, unknown>();
    for (const { name } of properties) values.set(name, await property(this.client, path, name));
    const pairs = memoryBackendPairs(id, object.type, values);
    return typeof pairs === "string" ? pairs : this.#addOnce("-object", list(...pairs));
  }

  #addSocket(label: string): string | undefined {
    const socket = this.machine.sockets.find(({ chardev }) => chardev === label);
    if (socket === undefined) return `its chardev ${label} is no UNIX socket`;
    const path = socket.path.replaceAll(",", ",,");
    const server = socket.listens ? ",server=on,wait=off" : "";
    return this.#addOnce("-chardev", `socket,id=${label},path=${path}${server}`);
  }

  #addOnce(option: string, value: string): undefined {
    const isThere = this.added.some((word, at) => word === value && this.added[at - 1] === option);
    if (!isThere) this.added.push(option, value);
  }
}

/** QEMU tells a PCI address as one number, and wants it as slot and function in hexadecimal digits; and an object by its path. */
function writtenAs(type: string, name: string, value: unknown): string | undefined {
  if (name === "memdev" && typeof value === "string") return value.split("/").at(-1);
  if (name !== "addr" || type === "pc-dimm" || typeof value !== "number") return writtenValue(value);
  return `${(value >> 3).toString(16)}.${value & 7}`;
}

function writtenValue(value: unknown): string | undefined {
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function list(...pairs: OptionPair[]): string {
  return formatOptionList(pairs);
}

/** What devices that were taken out had been made of: a QEMU that is started with it would look for a back-end or a file that is gone. */
async function findRemovedParts(client: QmpClient, machine: Recorded): Promise<HotPlug["removedParts"]> {
  const chardevs = await client.request("query-chardev", { answer: qmpChardevs });
  const nodes = await client.request("query-named-block-nodes", {
    answer: qmpBlockNodes,
    arguments: { flat: true },
  });
  const objects = await children(client, "/objects");
  const present: Readonly<Record<string, ReadonlySet<string | undefined> | undefined>> = {
    "-netdev": machine.netdevs && new Set(machine.netdevs.map(({ id }) => id)),
    "-chardev": new Set(chardevs.map(({ label }) => label)),
    "-blockdev": new Set(nodes.map((node) => node["node-name"])),
    "-object": new Set(objects.map(({ name }) => name)),
  };
  const words = machine.commandLine ?? [];
  return words.flatMap((word, at) => {
    const option = (words[at - 1] ?? "").replace(/^--/, "-");
    const [those, id] = [Object.hasOwn(present, option) ? present[option] : undefined, idOf(word)];
    return those === undefined || id === undefined || those.has(id) ? [] : [{ option, id }];
  });
}

async function children(client: QmpClient, path: string): Promise<Device[]> {
  const objects = await client.request("qom-list", { answer: qmpObjects, arguments: { path } });
  return objects.flatMap(({ name, type }) => {
    const child = /^child<(.+)>$/.exec(type)?.[1];
    return child === undefined ? [] : [{ name, type: child, path: `${path}/${name}` }];
  });
}

async function isHotPlugged(client: QmpClient, path: string): Promise<boolean> {
  return (await property(client, path, "hotplugged")) === true;
}

async function text(client: QmpClient, path: string, name: string): Promise<string | undefined> {
  return qmpText.safeParse(await property(client, path, name)).data;
}

async function property(client: QmpClient, path: string, name: string): Promise<unknown> {
  try {
    return await client.request("qom-get", { answer: z.unknown(), arguments: { path, property: name } });
  } catch (error) {
    // A property that can only be written, or that this QEMU does not have.
    if (error instanceof QmpError) return undefined;
    throw error;
  }
}
