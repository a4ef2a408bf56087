import type { StateTree } from "../../decode/mod.ts";
import type { ByteReader } from "./byte-reader.ts";

const DEVICE_VERSION = 2;
const VIRTIO_VENDOR = 0x1af4;
const CONFIG_BYTES = 256;
const EXPRESS_CONFIG_BYTES = 4096;
const IRQ_PINS = 4;
const CAPABILITY = { list: 0x34, msix: 0x11, express: 0x10 } as const;
const MAX_CAPABILITIES = 48;
const MSIX_ENTRY_BYTES = 16;

export interface VirtioPci {
  readonly tree: StateTree;
  /** Then each queue has a vector. */
  readonly hasVectors: boolean;
}

/**
 * What the PCI transport puts in front of a virtio device (QEMU's pci_device_save and msix_save): the config space, the
 * interrupt pins, and the MSI-X table, whose size the config space tells.
 *
 * @returns undefined where this is no virtio device on PCI
 * @throws FormatError where it is cut off
 */
export function readVirtioPci(reader: ByteReader): VirtioPci | undefined {
  if (reader.u32() !== DEVICE_VERSION) return undefined;
  const first = reader.take(CONFIG_BYTES);
  if ((first[0]! | (first[1]! << 8)) !== VIRTIO_VENDOR) return undefined;
  const { vectors, isExpress } = capabilities(first);
  const rest = isExpress ? reader.take(EXPRESS_CONFIG_BYTES - CONFIG_BYTES) : undefined;
  const pins = Array.from({ length: IRQ_PINS }, (_, pin) => ({ name: `[${pin}]`, value: reader.u32() }));
  const children: StateTree[] = [
    { name: "config space", bytes: first },
    ...(rest === undefined ? [] : [{ name: "extended config space", bytes: rest }]),
    { name: "interrupt pins", children: pins },
  ];
  if (vectors > 0) {
    children.push(
      { name: "MSI-X table", bytes: reader.take(vectors * MSIX_ENTRY_BYTES), note: `${vectors} vectors` },
      { name: "MSI-X pending", bytes: reader.take(Math.ceil(vectors / 8)) },
      vector("config vector", reader.u16()),
    );
  }
  return { tree: { name: "PCI", children }, hasVectors: vectors > 0 };
}

export function vector(name: string, value: number): StateTree {
  return value === 0xffff ? { name, value, note: "none" } : { name, value };
}

function capabilities(config: Uint8Array): { vectors: number; isExpress: boolean } {
  let [vectors, isExpress] = [0, false];
  let at = config[CAPABILITY.list]!;
  for (let seen = 0; at >= 0x40 && at <= CONFIG_BYTES - 4 && seen < MAX_CAPABILITIES; seen += 1) {
    if (config[at] === CAPABILITY.msix) vectors = ((config[at + 2]! | (config[at + 3]! << 8)) & 0x7ff) + 1;
    if (config[at] === CAPABILITY.express) isExpress = true;
    at = config[at + 1]!;
  }
  return { vectors, isExpress };
}
