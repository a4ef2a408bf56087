/**
 * A signature: Ed25519 over the root and the sha256 of every record. The index has xxh3 of the records, which only finds
 * accidents; the sha256 leaves make the signature hold for every byte of the file.
 */
import { createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { FormatError, UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_RECORDS } from "../../src/limits.ts";
import { readU64, viewOf } from "./bytes.ts";
import { END_RECORD_BYTES, encodeEnd } from "./end-record.ts";
import { FileInput } from "./file-input.ts";
import { writeAll } from "./file-io.ts";
import { HEADER_PREFIX_BYTES, headerSizeBytes } from "./header.ts";
import { OutputFile } from "./output-file.ts";
import {
  encodeRecordHead,
  RECORD_CHECKSUM_BYTES,
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  RecordType,
  recordChecksum,
} from "./record.ts";
import type { SnapshotReader } from "./snapshot-reader.ts";
import { readFrame } from "./structure.ts";
import { checkRecordAt } from "./verify-locked.ts";

/** u32 version, u32 leaves, u8[32] public key, u8[64] signature; then the leaves. */
const FIXED_BYTES = 104;
const VERSION = 1;
const LEAF_BYTES = 32;
const PURPOSE = new TextEncoder().encode("vhu snapshot signature 1\0");
/** DER before the 32 bytes of an Ed25519 public key (RFC 8410, 4). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** Who signed a file, found to be right for every byte of it. */
export interface Signer {
  /** Ed25519, hexadecimal. */
  readonly publicKey: string;
}

/**
 * Writes `path` to `target` with a signature. The root stays, so that files based on it stay based on it; no key is needed
 * where it is encrypted.
 *
 * @param target A path, or the number of a pipe's fd.
 * @param pem An Ed25519 private key (`openssl genpkey -algorithm ed25519`).
 * @throws UsageError for another key, or a file that is signed already; FormatError, SyscallError
 */
export function signSnapshot(
  path: string,
  target: string | number,
  pem: string,
  onProgress?: (doneBytes: number, totalBytes: number) => void,
): Signer {
  const { privateKey, publicKey } = keysOf(pem);
  using input = FileInput.open(path);
  const { root, indexOffset, trailer, headerBytes } = readFrame(input);
  if (trailer.length > 2) throw new UsageError(`${path} is signed already`);
  // Nobody should sign what is damaged; what each record says of itself needs no key.
  for (let offset = headerBytes; offset < indexOffset; ) offset = checkRecordAt(input, offset, indexOffset);
  using file = typeof target === "string" ? new OutputFile(target) : undefined;
  const [fd, what] = typeof target === "string" ? [file?.fd ?? -1, target] : [target, "the pipe"];
  const leaves: Uint8Array[] = [];
  let position = 0;
  for (const bytes of recordsTo(input, indexOffset)) {
    leaves.push(new Uint8Array(Bun.CryptoHasher.hash("sha256", bytes)));
    writeAll(fd, bytes, what);
    position += bytes.length;
    onProgress?.(position, input.sizeBytes);
  }
  const payload = new Uint8Array(FIXED_BYTES + leaves.length * LEAF_BYTES);
  viewOf(payload).setUint32(0, VERSION, true);
  viewOf(payload).setUint32(4, leaves.length, true);
  payload.set(publicKey, 8);
  for (const [index, leaf] of leaves.entries()) payload.set(leaf, FIXED_BYTES + index * LEAF_BYTES);
  payload.set(sign(null, signedBytes(root, payload), privateKey), 40);
  const signature = recordOf(RecordType.signature, 0, payload);
  const indexBytes = position - indexOffset;
  const fileBytes = position + signature.length + END_RECORD_BYTES;
  const end = recordOf(RecordType.end, 1, encodeEnd({ indexOffset, indexBytes, fileBytes, root }));
  for (const record of [signature, end]) writeAll(fd, record, what);
  file?.publish();
  return { publicKey: Buffer.from(publicKey).toString("hex") };
}

/**
 * Who signed a file; undefined for one that is not signed. Reads all of it.
 *
 * @throws FormatError where the signature is not right for the file
 */
export function readSigner(reader: SnapshotReader): Signer | undefined {
  const entry = reader.records().find(({ type }) => type === RecordType.signature);
  if (entry === undefined) return undefined;
  const fail = (message: string): never => {
    throw new FormatError(message, "signature", entry.offset);
  };
  const payload = reader.readRecord(entry);
  const count = payload.length < FIXED_BYTES ? -1 : viewOf(payload).getUint32(4, true);
  const isWhole = count <= MAX_SNAPSHOT_RECORDS && payload.length === FIXED_BYTES + count * LEAF_BYTES;
  if (!isWhole || viewOf(payload).getUint32(0, true) !== VERSION) fail("the signature is of an unknown form");
  const publicKey = payload.subarray(8, 40);
  const key = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: "der", type: "spki" });
  const root = Buffer.from(reader.root, "hex");
  if (!verify(null, signedBytes(root, payload), key, payload.subarray(40, FIXED_BYTES))) {
    fail("the signature does not match");
  }
  let index = 0;
  for (const bytes of recordsTo(reader.input, reader.indexOffset)) {
    const leaf = Bun.CryptoHasher.hash("sha256", bytes);
    const at = FIXED_BYTES + index * LEAF_BYTES;
    if (Buffer.compare(leaf as Uint8Array, payload.subarray(at, at + LEAF_BYTES)) !== 0) {
      fail(`record ${index} is not the one that was signed`);
    }
    index += 1;
  }
  if (index !== count) fail(`${count} records were signed, there are ${index}`);
  return { publicKey: Buffer.from(publicKey).toString("hex") };
}

/** Who a file says has signed it, in hexadecimal; only `readSigner` finds out whether that is so. @throws FormatError */
export function claimedSigner(reader: SnapshotReader): string | undefined {
  const entry = reader.records().find(({ type }) => type === RecordType.signature);
  if (entry === undefined) return undefined;
  const payload = reader.readRecord(entry);
  if (payload.length < FIXED_BYTES)
    throw new FormatError("the signature is too short", "signature", entry.offset);
  return payload.subarray(8, 40).toHex();
}

/** Header and records as they are in the file, up to the index; each is valid until the next. */
function* recordsTo(input: FileInput, indexOffset: number): Generator<Uint8Array, void> {
  const headerBytes = headerSizeBytes(input.read(0, HEADER_PREFIX_BYTES, "header"));
  yield input.read(0, headerBytes, "header");
  for (let offset = headerBytes; offset <= indexOffset; ) {
    const head = input.read(offset, RECORD_HEAD_BYTES, "record");
    const sizeBytes = readU64(viewOf(head), 16) + RECORD_OVERHEAD_BYTES;
    if (offset + sizeBytes > input.sizeBytes) throw new FormatError("a record is cut off", "record", offset);
    yield input.read(offset, sizeBytes, "record");
    offset += sizeBytes;
  }
}

function signedBytes(root: Uint8Array, payload: Uint8Array): Uint8Array {
  const leaves = Bun.CryptoHasher.hash("sha256", payload.subarray(FIXED_BYTES)) as Uint8Array;
  return Buffer.concat([PURPOSE, root, leaves]);
}

function recordOf(type: number, flags: number, payload: Uint8Array): Uint8Array {
  const head = encodeRecordHead({ type, flags, id: 0n, payloadBytes: payload.length });
  const bytes = Buffer.concat([head, payload, new Uint8Array(RECORD_CHECKSUM_BYTES)]);
  viewOf(bytes).setBigUint64(head.length + payload.length, recordChecksum(head, payload), true);
  return bytes;
}

function keysOf(pem: string) {
  try {
    const privateKey = createPrivateKey(pem);
    const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
    if (privateKey.asymmetricKeyType === "ed25519") return { privateKey, publicKey: spki.subarray(-32) };
  } catch (cause) {
    throw new UsageError("the key is no private key in PEM form", { cause });
  }
  throw new UsageError("the key is not an Ed25519 key: make one with `openssl genpkey -algorithm ed25519`");
}
