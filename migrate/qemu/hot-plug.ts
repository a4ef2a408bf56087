import { z } from "zod";
import { deviceKeys, formatOptionList, type OptionPair } from "../policy/mod.ts";
import type { QemuMachine } from "./qemu-machine.ts";
import { qmpBlockNodes, qmpDeviceProperties, qmpObjects, qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";

/** What a machine has become since its command line. */
export interface HotPlug {
  /** Arguments that make what was plugged in. Data, as the command line is. */
  readonly added: string[];
  /** Ids of devices that were taken out. */
  readonly removed: string[];
  /** What was plugged in and cannot be said in arguments, by name. */
  readonly notRebuilt: string[];
}

interface Recorded {
  readonly commandLine: readonly string[] | undefined;
  readonly sockets: QemuMachine["sockets"];
}

const PERIPHERAL = "/machine/peripheral";
const FORMATS = ["raw", "qcow2"];

/**
 * Compares QEMU's trees of devices and block nodes with its command line. A QEMU that is started from the command line alone
 * would have other devices, and refuse the state.
 */
export async function findHotPlug(client: QmpClient, machine: Recorded): Promise<HotPlug> {
  const words = machine.commandLine ?? [];
  if (words.length === 0) return { added: [], removed: [], notRebuilt: [] };
  const named = await children(client, PERIPHERAL);
  const devices = [...named, ...(await children(client, "/machine/peripheral-anon"))];
  const finder = new Finder(client, machine);
  for (const device of devices) {
    if (await isHotPlugged(client, device.path)) await finder.add(device);
  }
  const ids = words.flatMap((word, at) => (words[at - 1] === "-device" ? (idIn(word) ?? []) : []));
  const present = new Set(named.map(({ name }) => name));
  return {
    added: finder.added,
    removed: ids.filter((id) => !present.has(id)),
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
      if (value === undefined || value === null || value === "" || value === usual) continue;
      const written = name === "addr" ? addressOf(value) : writtenValue(value);
      // -1 is "none" to a boot index.
      if (written !== undefined && !(name === "bootindex" && value === -1))
        pairs.push({ key: name, value: written });
    }
    return pairs;
  }

  async #addWhatItNeeds({ key, value }: OptionPair): Promise<string | undefined> {
    const isGiven = (option: string) =>
      (this.machine.commandLine ?? []).some(
        (word, at, words) => words[at - 1] === option && (idIn(word) === value || nodeIn(word) === value),
      );
    switch (key) {
      case "drive":
        return isGiven("-blockdev") || isGiven("-drive") ? undefined : this.#addNode(value);
      case "chardev":
        return isGiven("-chardev") ? undefined : this.#addSocket(value);
      case "netdev":
        return isGiven("-netdev") ? undefined : `QEMU does not tell what its netdev ${value} is`;
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

/** QEMU tells a PCI address as one number, and wants it as slot and function, in hexadecimal digits. */
function addressOf(value: unknown): string | undefined {
  if (typeof value !== "number") return writtenValue(value);
  return `${(value >> 3).toString(16)}.${value & 7}`;
}

function writtenValue(value: unknown): string | undefined {
  if (typeof value === "boolean") return value ? "on" : "off";
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function list(...pairs: OptionPair[]): string {
  return formatOptionList(pairs);
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

/** Of a list, in either of its forms. */
function idIn(word: string): string | undefined {
  return /(?:^|,)id=([^,]+)/.exec(word)?.[1] ?? /"id"\s*:\s*"([^"]+)"/.exec(word)?.[1];
}

function nodeIn(word: string): string | undefined {
  return /(?:^|,)node-name=([^,]+)/.exec(word)?.[1] ?? /"node-name"\s*:\s*"([^"]+)"/.exec(word)?.[1];
}
