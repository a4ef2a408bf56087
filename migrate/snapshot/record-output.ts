import assert from "node:assert/strict";
import { UsageError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_RECORD_BYTES, MAX_SNAPSHOT_RECORDS } from "../../src/limits.ts";
import { viewOf } from "./bytes.ts";
import type { FileCipher } from "./file-cipher.ts";
import { SEAL_TAG_BYTES } from "./file-cipher.ts";
import { writeAll } from "./file-io.ts";
import { encodeHeader, type FullHeader } from "./header.ts";
import type { SealedHeader } from "./manifest.ts";
import {
  encodeRecordHead,
  RECORD_CHECKSUM_BYTES,
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  type RecordEntry,
  RecordFlag,
  type RecordHead,
  RecordType,
  recordChecksum,
} from "./record.ts";

/** What can be read without a key. */
const PLAIN_TYPES: ReadonlySet<number> = new Set([RecordType.keys, RecordType.signature, RecordType.end]);

/** How bytes get into the file; tests put faults here. */
export type WriteCall = (fd: number, bytes: Uint8Array, what: string) => void;

/** Writes header and records one after another, without seeking, and remembers each for the index. */
export class RecordOutput {
  readonly fd: number;
  /** The file's name, for errors. */
  readonly what: string;
  readonly entries: RecordEntry[] = [];
  readonly #writeAll: WriteCall;
  #position = 0;
  /** From when it is set on, payloads are sealed. */
  cipher: FileCipher | undefined;

  constructor(fd: number, what: string, write: WriteCall = writeAll) {
    this.fd = fd;
    this.what = what;
    this.#writeAll = write;
  }

  /** Bytes written so far: where the next record will start. */
  get position(): number {
    return this.#position;
  }

  header(header: FullHeader | SealedHeader, version?: number): void {
    const bytes = encodeHeader(header, version);
    this.#write(bytes);
    const checksum = viewOf(bytes).getBigUint64(bytes.length - RECORD_CHECKSUM_BYTES, true);
    const payloadBytes = bytes.length - RECORD_OVERHEAD_BYTES;
    this.entries.push({ type: RecordType.header, flags: 0, id: 0n, payloadBytes, offset: 0, checksum });
  }

  /** Returns the payload as it is in the file. */
  record(type: number, flags: number, id: bigint, payload: Uint8Array): Uint8Array {
    const room = new Uint8Array(RECORD_HEAD_BYTES + payload.length + RECORD_CHECKSUM_BYTES);
    room.set(payload, RECORD_HEAD_BYTES);
    return this.recordInPlace(type, flags, id, room);
  }

  /** As `record`, where the caller left room for head and checksum around the payload: no copy, one write. */
  recordInPlace(type: number, flags: number, id: bigint, room: Uint8Array): Uint8Array {
    if (this.cipher === undefined || PLAIN_TYPES.has(type)) {
      return this.storedRecord(type, flags, id, room);
    }
    const payload = room.subarray(RECORD_HEAD_BYTES, room.length - RECORD_CHECKSUM_BYTES);
    const place = {
      position: this.#position + RECORD_HEAD_BYTES,
      type,
      recordId: id,
      frameNumber: 0,
      isLast: true,
    };
    const sealed = new Uint8Array(room.length + SEAL_TAG_BYTES);
    sealed.set(this.cipher.seal(payload, place), RECORD_HEAD_BYTES);
    return this.storedRecord(type, flags | RecordFlag.encrypted, id, sealed);
  }

  /** As `recordInPlace`, with a payload that is as it will be in the file. */
  storedRecord(type: number, flags: number, id: bigint, room: Uint8Array): Uint8Array {
    const payloadBytes = room.length - RECORD_OVERHEAD_BYTES;
    assert(payloadBytes >= 0);
    if (payloadBytes > MAX_SNAPSHOT_RECORD_BYTES || this.entries.length >= MAX_SNAPSHOT_RECORDS) {
      throw new UsageError("the snapshot is too large for the format: too many records or extents");
    }
    const fields: RecordHead = { type, flags, id, payloadBytes };
    const head = encodeRecordHead(fields);
    const checksum = recordChecksum(head, room.subarray(RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + payloadBytes));
    room.set(head);
    viewOf(room).setBigUint64(RECORD_HEAD_BYTES + payloadBytes, checksum, true);
    const offset = this.#position;
    this.#write(room);
    this.entries.push({ ...fields, offset, checksum });
    return room.subarray(RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + payloadBytes);
  }

  #write(bytes: Uint8Array): void {
    this.#writeAll(this.fd, bytes, this.what);
    this.#position += bytes.length;
  }
}
