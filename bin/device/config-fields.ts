import type { DeviceTypeName } from "../../src/frontend/mod.ts";

/** A field of a config space, decoded for people. */
export type ConfigFields = Readonly<Record<string, string | number>>;

/** What is known of a type's config space (virtio 1.3, section 5). */
interface ConfigForm {
  /** Without these there is no such device. */
  readonly leastBytes: number;
  /** With everything that the newest spec adds. */
  readonly mostBytes: number;
  decode(view: DataView): ConfigFields;
}

/** Sizes in bytes count sectors of 512 bytes whatever `blk_size` says. */
const SECTOR_BYTES = 512;
const FS_TAG_BYTES = 36;

const forms: Partial<Record<DeviceTypeName, ConfigForm>> = {
  blk: {
    leastBytes: 8,
    mostBytes: 96,
    decode: (view) => ({
      capacityBytes: Number(view.getBigUint64(0, true)) * SECTOR_BYTES,
      ...u32(view, { sizeMax: 8, segMax: 12, blockBytes: 20 }),
      ...u16(view, { queues: 34 }),
    }),
  },
  net: {
    leastBytes: 6,
    mostBytes: 24,
    decode: (view) => ({
      mac: Array.from({ length: 6 }, (_, i) => view.getUint8(i).toString(16).padStart(2, "0")).join(":"),
      ...u16(view, { status: 6, maxQueuePairs: 8, mtu: 10 }),
    }),
  },
  console: {
    leastBytes: 4,
    mostBytes: 12,
    decode: (view) => ({ ...u16(view, { columns: 0, rows: 2 }), ...u32(view, { maxPorts: 4 }) }),
  },
  fs: {
    leastBytes: 40,
    mostBytes: 44,
    decode: (view) => ({
      tag: new TextDecoder()
        .decode(new Uint8Array(view.buffer, view.byteOffset, FS_TAG_BYTES))
        .replace(/\0.*$/s, ""),
      ...u32(view, { requestQueues: 36 }),
    }),
  },
};

/** The sizes that a type's config space can have; undefined for a type of which only the bytes are shown. */
export function configSizes(type: DeviceTypeName | undefined): Omit<ConfigForm, "decode"> | undefined {
  return type === undefined ? undefined : forms[type];
}

/** The fields that are there. Nothing for other types, or for fewer bytes than the type needs. */
export function decodeConfig(type: DeviceTypeName | undefined, bytes: Uint8Array): ConfigFields | undefined {
  const form = type === undefined ? undefined : forms[type];
  if (form === undefined || bytes.length < form.leastBytes) return undefined;
  return form.decode(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}

type Offsets = Readonly<Record<string, number>>;

function u16(view: DataView, offsets: Offsets): ConfigFields {
  return fields(view, offsets, 2, (offset) => view.getUint16(offset, true));
}

function u32(view: DataView, offsets: Offsets): ConfigFields {
  return fields(view, offsets, 4, (offset) => view.getUint32(offset, true));
}

function fields(
  view: DataView,
  offsets: Offsets,
  sizeBytes: number,
  read: (offset: number) => number,
): ConfigFields {
  const present = Object.entries(offsets).filter(([, offset]) => offset + sizeBytes <= view.byteLength);
  return Object.fromEntries(present.map(([name, offset]) => [name, read(offset)]));
}
