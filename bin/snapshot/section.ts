import { decodeDeviceState, type StateTree, valueTree } from "../../migrate/decode/mod.ts";
import { withoutSecrets } from "../../migrate/secrets/mod.ts";
import { type RecordListing, RecordType, type SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { treeDocument } from "./tree-document.ts";

/** A part of a file, as `--section` names it. */
export interface SnapshotSection {
  readonly name: string;
  /** Decrypted, and for a stream decompressed. */
  bytes(): Iterable<Uint8Array>;
  tree(): StateTree;
  /** For JSON: a part that is JSON already as it is. */
  document(): unknown;
  /** The bytes hold secrets that the tree and the document do not show. */
  readonly hasHiddenSecrets: boolean;
}

const JSON_SECTIONS: Readonly<Record<string, number>> = {
  header: RecordType.header,
  manifest: RecordType.manifest,
  "memory-map": RecordType.memoryMap,
  keys: RecordType.keys,
  parent: RecordType.parent,
};
const BINARY_SECTIONS: Readonly<Record<string, number>> = {
  index: RecordType.index,
  signature: RecordType.signature,
  end: RecordType.end,
};
const STREAM_SECTIONS: Readonly<Record<string, number>> = {
  "qemu-stream": RecordType.qemuStream,
  "machine-state": RecordType.machineState,
};

export const sectionNames: readonly string[] = [
  ...Object.keys(JSON_SECTIONS),
  ...Object.keys(BINARY_SECTIONS),
  ...Object.keys(STREAM_SECTIONS),
];

/** @throws UsageError for a name that is none, or of what this file does not have */
export function sectionNamed(reader: SnapshotReader, name: string, showSecrets = false): SnapshotSection {
  const stream = STREAM_SECTIONS[name];
  if (stream !== undefined) return streamSection(reader, name, stream);
  const type = JSON_SECTIONS[name] ?? BINARY_SECTIONS[name];
  if (type === undefined) {
    throw new UsageError(`there is no section "${name}"; there are ${sectionNames.join(", ")}`);
  }
  const entry = reader.records().find((record) => record.type === type);
  if (entry === undefined) throw new UsageError(`this snapshot has no ${name}`);
  const bytes = () => (type === RecordType.header ? reader.headerBytes() : reader.openRecord(entry));
  if (name in JSON_SECTIONS) {
    const whole: unknown = JSON.parse(new TextDecoder().decode(bytes()));
    const shown = showSecrets ? whole : withoutSecrets(whole);
    return {
      name,
      bytes: () => [bytes()],
      tree: () => valueTree(name, shown),
      document: () => shown,
      hasHiddenSecrets: !Bun.deepEquals(whole, shown),
    };
  }
  const tree = () => binaryTree(reader, name, entry);
  return {
    name,
    bytes: () => [bytes()],
    tree,
    document: () => treeDocument(tree()),
    hasHiddenSecrets: false,
  };
}

function binaryTree(reader: SnapshotReader, name: string, entry: RecordListing): StateTree {
  const { root, sizeBytes } = reader;
  if (name === "end") return valueTree(name, { indexOffset: reader.indexOffset, sizeBytes, root });
  if (name === "index") {
    return valueTree(name, {
      root,
      records: reader.records().map(({ typeName, id, offset, payloadBytes, checksum, isEncrypted }) => ({
        ...{ type: typeName, id, offset, payloadBytes, xxh3: checksum, isEncrypted },
      })),
      streams: reader.streams,
      extents: Object.fromEntries(
        reader.memoryMap.map((region) => [region.name, reader.extents(region.id).length]),
      ),
    });
  }
  const payload = reader.openRecord(entry);
  return {
    name,
    children: [
      { name: "publicKey", value: payload.subarray(8, 40).toHex(), note: "ed25519" },
      { name: "signature", bytes: payload.subarray(40, 104), note: "vhu snapshot verify checks it" },
      { name: "records", value: new DataView(payload.buffer, payload.byteOffset).getUint32(4, true) },
    ],
  };
}

function streamSection(reader: SnapshotReader, name: string, type: number): SnapshotSection {
  const stream = reader.streams.find((entry) => entry.type === type);
  if (stream === undefined) throw new UsageError(`this snapshot has no ${name}`);
  const bytes = () => reader.readStream(stream);
  const tree = () => {
    const whole = Buffer.concat([...bytes()]);
    const decoded = type === RecordType.machineState ? decodeDeviceState(whole) : undefined;
    return { ...(decoded ?? { bytes: whole, note: "--hex shows the bytes" }), name };
  };
  return { name, bytes, tree, document: () => treeDocument(tree()), hasHiddenSecrets: false };
}
