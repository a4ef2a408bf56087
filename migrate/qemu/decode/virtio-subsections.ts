import { FormatError } from "../../../src/errors.ts";
import type { StateTree } from "../../decode/mod.ts";
import { SECTION } from "../stream-format.ts";
import { ByteReader } from "./byte-reader.ts";

/** QEMU's VIRTIO_QUEUE_MAX: its arrays of queues always have that many. */
export const MAX_VIRTIO_QUEUES = 1024;

export interface Subsection {
  readonly name: string;
  readonly version: number;
  /** Of its head. */
  readonly start: number;
  readonly content: Uint8Array;
}

/** Those of a virtio device, in QEMU's order. The last is inside the one before it. */
const NAMES = [
  "virtio/device_endian",
  "virtio/64bit_features",
  "virtio/virtqueues",
  "virtio/ringsize",
  "virtio/broken",
  "virtio/extra_state",
  "virtio/started",
  "virtio/packed_virtqueues",
  "virtio/disabled",
];
const MODERN_PCI = "virtio_pci/modern_state";

/**
 * Subsections have no length: each is found by its head (5, u8 length, name, be32 version), and ends where the next one
 * begins. What a guest can put into a device's state may look like one: this is for looking at, not for loading.
 */
export function findSubsections(
  bytes: Uint8Array,
  from: number,
  names: readonly string[] = NAMES,
): Subsection[] {
  const haystack = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const heads: { name: string; start: number; end: number }[] = [];
  let at = from;
  for (const name of names) {
    const head = Buffer.concat([Buffer.of(SECTION.subsection, name.length), Buffer.from(name)]);
    const start = haystack.indexOf(head, at);
    const end = start + head.length + 4;
    if (start < 0 || end > bytes.length) continue;
    heads.push({ name, start, end });
    at = end;
  }
  return heads.map(({ name, start, end }, index) => ({
    name,
    start,
    version: haystack.readUInt32BE(end - 4),
    content: bytes.subarray(end, heads[index + 1]?.start ?? bytes.length),
  }));
}

/** A virtio subsection's fields; one of another size than QEMU 10 writes stays bytes. */
export function subsectionTree({ name, version, content }: Subsection, queueCount: number): StateTree {
  const note = `subsection, version ${version}`;
  const reader = new ByteReader(content, name);
  try {
    const shown = fieldsOf(name, reader, queueCount);
    if (reader.remainingBytes === 0) return { name, note, ...shown };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
  return { name, bytes: content, note: `${note}, of a form that is not known` };
}

function fieldsOf(name: string, reader: ByteReader, queueCount: number): Omit<StateTree, "name"> {
  switch (name) {
    case "virtio/device_endian":
    case "virtio/broken":
    case "virtio/started":
    case "virtio/disabled":
      return { value: reader.u8() };
    case "virtio/64bit_features":
      return { value: hex(reader.u64()) };
    case "virtio/virtqueues":
      return queues(queueCount, () => [
        { name: "available", value: hex(reader.u64()) },
        { name: "used", value: hex(reader.u64()) },
      ]);
    case "virtio/ringsize":
      return queues(queueCount, () => [{ name: "default size", value: reader.u32() }]);
    case "virtio/packed_virtqueues":
      return queues(queueCount, () => [
        { name: "last available index", value: reader.u16() },
        { name: "last available wrap counter", value: reader.u8() },
        { name: "used index", value: reader.u16() },
        { name: "used wrap counter", value: reader.u8() },
        { name: "in use", value: reader.u32() },
      ]);
    default:
      return modernPci(reader, queueCount);
  }
}

/** Of the PCI transport: what a driver has set through the modern registers. */
function modernPci(reader: ByteReader, queueCount: number): Omit<StateTree, "name"> {
  const [inner] = findSubsections(reader.take(reader.remainingBytes), 0, [MODERN_PCI]);
  if (inner?.start !== 0) throw new FormatError("it holds no PCI state", "virtio/extra_state");
  const fields = new ByteReader(inner.content, MODERN_PCI);
  const children: StateTree[] = [
    { name: "device feature selector", value: fields.u32() },
    { name: "guest feature selector", value: fields.u32() },
    { name: "guest features", value: hex(BigInt(fields.u32()) | (BigInt(fields.u32()) << 32n)) },
    { name: "queues", ...queues(queueCount, () => modernQueue(fields)) },
  ];
  if (fields.remainingBytes > 0) throw new FormatError("it is of another size", MODERN_PCI);
  return { children: [{ name: MODERN_PCI, note: `subsection, version ${inner.version}`, children }] };
}

function modernQueue(fields: ByteReader): StateTree[] {
  const size = fields.u16();
  fields.take(1);
  const isEnabled = fields.u8() !== 0;
  // Low half, high half.
  const address = () => hex(BigInt(fields.u32()) | (BigInt(fields.u32()) << 32n));
  return [
    { name: "size", value: size },
    { name: "enabled", value: isEnabled },
    { name: "descriptors", value: address() },
    { name: "available", value: address() },
    { name: "used", value: address() },
  ];
}

/** Of all that QEMU writes, those that the device has. */
function queues(queueCount: number, read: () => StateTree[]): Omit<StateTree, "name"> {
  const all = Array.from({ length: MAX_VIRTIO_QUEUES }, (_, index) => ({
    name: `[${index}]`,
    children: read(),
  }));
  return { children: all.slice(0, queueCount) };
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
