import { arch, cpus, release } from "node:os";
import { CompatibilityError, FormatError, UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_HEADER_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { viewOf } from "./bytes.ts";
import { type SealedHeader, type SnapshotHeader, validateHeader } from "./manifest.ts";

/** "VHUSNAP" and a zero byte. */
export const SNAPSHOT_MAGIC: Uint8Array = new TextEncoder().encode("VHUSNAP\0");
/** What is written. Every version up to it is read: older ones through the steps of upgrades.ts. */
export const SNAPSHOT_VERSION = 1;
/** Magic, version, length of the JSON. */
export const HEADER_PREFIX_BYTES = 16;
const CHECKSUM_BYTES = 8;

/** What the caller says; the rest has a default. */
export interface HeaderFields {
  readonly writer: { readonly name: string; readonly version: string };
  readonly runState?: string;
  readonly machine?: { readonly name: string };
  /** The program that ran the machine. Secrets were taken out of its command line. */
  readonly vmm?: {
    readonly name: string;
    readonly version?: string;
    readonly commandLine?: readonly string[];
  };
  readonly labels?: Readonly<Record<string, string>>;
  /** Now, as ISO 8601, unless told. */
  readonly createdAt?: string;
  /** A random UUID unless told. */
  readonly id?: string;
  /** This host unless told. */
  readonly host?: { readonly kernel: string; readonly architecture: string; readonly cpu: string };
}

/** What another file takes over from a header: all but the id. */
export function headerFieldsOf(header: SnapshotHeader): HeaderFields {
  const { writer, createdAt, runState, machine, vmm, host, labels } = header;
  return {
    ...{ writer, createdAt, host, labels },
    ...(runState === undefined ? {} : { runState }),
    ...(machine === undefined ? {} : { machine }),
    ...(vmm === undefined ? {} : { vmm: { ...vmm } as NonNullable<HeaderFields["vmm"]> }),
  };
}

export type FullHeader = ReturnType<typeof fullHeader>;

/** What the caller said, with the rest filled in. */
export function fullHeader(fields: HeaderFields) {
  return {
    writer: fields.writer,
    createdAt: fields.createdAt ?? new Date().toISOString(),
    id: fields.id ?? crypto.randomUUID(),
    runState: fields.runState,
    machine: fields.machine,
    vmm: fields.vmm,
    host: fields.host ?? { kernel: release(), architecture: arch(), cpu: cpus()[0]?.model ?? "unknown" },
    labels: fields.labels ?? {},
  };
}

/** magic[8], u32 version, u32 length, JSON, u64 xxh3 of all before. @throws UsageError */
export function encodeHeader(header: FullHeader | SealedHeader, version = SNAPSHOT_VERSION): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(header));
  if (json.length > MAX_SNAPSHOT_HEADER_BYTES) {
    throw new UsageError(
      `the snapshot's header has ${json.length} bytes, at most ${MAX_SNAPSHOT_HEADER_BYTES} fit`,
    );
  }
  const bytes = new Uint8Array(HEADER_PREFIX_BYTES + json.length + CHECKSUM_BYTES);
  const view = viewOf(bytes);
  bytes.set(SNAPSHOT_MAGIC);
  view.setUint32(8, version, true);
  view.setUint32(12, json.length, true);
  bytes.set(json, HEADER_PREFIX_BYTES);
  const covered = HEADER_PREFIX_BYTES + json.length;
  view.setBigUint64(covered, xxh3(bytes.subarray(0, covered)), true);
  return bytes;
}

/**
 * The size of the whole header, from its first 16 bytes.
 *
 * @throws FormatError if this is no snapshot, CompatibilityError if it is of a version that this reader does not know.
 */
export function headerSizeBytes(prefix: Uint8Array): number {
  if (!SNAPSHOT_MAGIC.every((byte, index) => byte === prefix[index])) {
    throw new FormatError("this is not a vhu snapshot", "header", 0);
  }
  const length = viewOf(prefix).getUint32(12, true);
  if (length > MAX_SNAPSHOT_HEADER_BYTES) {
    throw new FormatError(`a header of ${length} bytes is above the limit`, "header", 12);
  }
  return HEADER_PREFIX_BYTES + length + CHECKSUM_BYTES;
}

/** @throws FormatError, CompatibilityError */
export function decodeHeader(bytes: Uint8Array): {
  readonly formatVersion: number;
  /** Of an encrypted file, little is to be seen before the manifest is opened. */
  readonly header: SnapshotHeader | SealedHeader;
  readonly checksum: bigint;
} {
  const covered = bytes.length - CHECKSUM_BYTES;
  const view = viewOf(bytes);
  const checksum = xxh3(bytes.subarray(0, covered));
  if (view.getBigUint64(covered, true) !== checksum) {
    throw new FormatError("the checksum of the header does not match", "header", 0);
  }
  const formatVersion = view.getUint32(8, true);
  if (formatVersion > SNAPSHOT_VERSION) {
    throw new CompatibilityError(
      `the snapshot has format version ${formatVersion}, this vhu reads up to ${SNAPSHOT_VERSION}: use a newer vhu`,
      { details: { version: formatVersion, supported: SNAPSHOT_VERSION } },
    );
  }
  const header = validateHeader(bytes.subarray(HEADER_PREFIX_BYTES, covered), formatVersion);
  return { formatVersion, header, checksum };
}
