import { FormatError } from "../../../src/errors.ts";
import { MAX_QUEUE_SIZE } from "../../../src/limits.ts";
import type { StateTree } from "../../decode/mod.ts";
import { type BackendStateDecoder, backendStateTree } from "./backend-state.ts";
import { ByteReader } from "./byte-reader.ts";
import { readVirtioPci, type VirtioPci, vector } from "./virtio-pci.ts";
import { findSubsections, MAX_VIRTIO_QUEUES, type Subsection, subsectionTree } from "./virtio-subsections.ts";

type Shown = Omit<StateTree, "name">;

/** Of the virtio specification, 2.1. */
const STATUS_BITS: readonly (readonly [bit: number, name: string])[] = [
  [1, "ACKNOWLEDGE"],
  [2, "DRIVER"],
  [4, "DRIVER_OK"],
  [8, "FEATURES_OK"],
  [64, "DEVICE_NEEDS_RESET"],
  [128, "FAILED"],
];
const MAX_DEVICE_CONFIG_BYTES = 4096;
const NET_BACKEND = "virtio-net-device/backend";

/**
 * A virtio device's section, which QEMU writes by hand and does not describe (virtio_save, hw/virtio/virtio.c): the
 * transport, the common part and the subsections are taken apart; what the device type adds in between is bytes, but for
 * a vhost-user back-end's state in it. A section of another form is bytes, with a note.
 */
export function virtioTree(bytes: Uint8Array, decode?: BackendStateDecoder): Shown {
  try {
    return { note: "virtio, read by the layout of QEMU's virtio_save", children: virtioParts(bytes, decode) };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { bytes, note: `virtio state, not described by the stream: ${error.message}` };
  }
}

function virtioParts(bytes: Uint8Array, decode: BackendStateDecoder | undefined): StateTree[] {
  const reader = new ByteReader(bytes, "virtio state");
  const pci = readVirtioPci(reader);
  if (pci === undefined) throw new FormatError("it is on no PCI bus", "virtio state", 0);
  const status = reader.u8();
  const common: StateTree[] = [
    { name: "status", value: status, note: statusNames(status) },
    { name: "interrupt status", value: reader.u8() },
    { name: "queue selector", value: reader.u16() },
    { name: "guest features (low)", value: `0x${reader.u32().toString(16)}` },
    { name: "config", bytes: reader.take(limited(reader.u32(), MAX_DEVICE_CONFIG_BYTES, "config bytes")) },
  ];
  const queueCount = limited(reader.u32(), MAX_VIRTIO_QUEUES, "queues");
  const queues = Array.from({ length: queueCount }, (_, index) => queue(reader, index, pci));
  const subsections = findSubsections(bytes, reader.offset);
  const device = bytes.subarray(reader.offset, subsections[0]?.start ?? bytes.length);
  return [
    pci.tree,
    ...common,
    { name: "queues", note: `${queueCount}`, children: queues },
    ...deviceParts(device, decode),
    ...subsections.map((subsection) => subsectionTree(subsection, queueCount)),
  ];
}

function queue(reader: ByteReader, index: number, { hasVectors }: VirtioPci): StateTree {
  const size = limited(reader.u32(), MAX_QUEUE_SIZE, "entries of a queue");
  const children: StateTree[] = [
    { name: "size", value: size },
    { name: "descriptors", value: `0x${reader.u64().toString(16)}` },
    { name: "last available index", value: reader.u16() },
  ];
  if (hasVectors) children.push(vector("vector", reader.u16()));
  return { name: `[${index}]`, children };
}

/** What the device type has written itself. */
function deviceParts(bytes: Uint8Array, decode: BackendStateDecoder | undefined): StateTree[] {
  if (bytes.length === 0) return [];
  const note = "of the device type, not described by the stream";
  const [backend] = findSubsections(bytes, 0, [NET_BACKEND]);
  if (backend === undefined) return [{ name: "device", bytes, note }];
  const parts: StateTree[] =
    backend.start > 0 ? [{ name: "device", bytes: bytes.subarray(0, backend.start), note }] : [];
  return [...parts, backendTree(backend, decode)];
}

function backendTree(
  { name, version, content }: Subsection,
  decode: BackendStateDecoder | undefined,
): StateTree {
  return { name, ...backendStateTree(content, `subsection, version ${version}`, decode, "net") };
}

function statusNames(status: number): string {
  return STATUS_BITS.filter(([bit]) => (status & bit) !== 0)
    .map(([, name]) => name)
    .join(" ");
}

function limited(value: number, limit: number, what: string): number {
  if (value <= limit) return value;
  throw new FormatError(`${value} ${what} are above the limit of ${limit}`, "virtio state");
}
