import { FormatError } from "../../src/errors.ts";
import { STATE_CHUNK_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { viewOf } from "./bytes.ts";
import { decompressFrame, type Zstd } from "./compression.ts";
import type { FileInput } from "./file-input.ts";
import type { StreamEntry } from "./index-table.ts";
import { chunkId, RECORD_HEAD_BYTES, type RecordEntry, recordTypeName } from "./record.ts";
import { CHUNK_CODEC_ZSTD, CHUNK_HEAD_BYTES } from "./stream-writer.ts";
import { openPayload, readPayload, sectionOf } from "./structure.ts";

/** The chunks of a stream (`records`, its own in the order of the file), each checked; at the end count, size and sha256 of the whole. @throws FormatError */
export function* readStreamChunks(
  input: FileInput,
  records: readonly RecordEntry[],
  stream: StreamEntry,
  zstd: Zstd,
): Generator<Uint8Array, void> {
  const hash = new Bun.CryptoHasher("sha256");
  const section = `${sectionOf({ type: stream.type, id: chunkId(stream.streamId, 0) })}`;
  let chunkCount = 0;
  let sizeBytes = 0;
  for (const entry of records) {
    if (entry.id !== chunkId(stream.streamId, chunkCount)) {
      throw new FormatError(
        `chunk ${chunkCount} of the state is missing or out of order`,
        section,
        entry.offset,
      );
    }
    const plain = readChunk(input, entry, section, zstd);
    hash.update(plain);
    chunkCount += 1;
    sizeBytes += plain.length;
    if (sizeBytes > stream.sizeBytes) {
      throw new FormatError(
        `the state has more than the ${stream.sizeBytes} bytes of the index`,
        section,
        entry.offset,
      );
    }
    yield plain;
  }
  if (
    chunkCount !== stream.chunkCount ||
    sizeBytes !== stream.sizeBytes ||
    hash.digest("hex") !== stream.sha256
  ) {
    throw new FormatError(
      `the ${recordTypeName(stream.type)} as a whole is not what the index says`,
      section,
    );
  }
}

function readChunk(input: FileInput, entry: RecordEntry, section: string, zstd: Zstd): Uint8Array {
  const payload = openPayload(input, entry, readPayload(input, entry));
  const offset = entry.offset + RECORD_HEAD_BYTES;
  if (payload.length < CHUNK_HEAD_BYTES) throw new FormatError("a chunk is too short", section, offset);
  const view = viewOf(payload);
  const plainBytes = view.getUint32(0, true);
  if (plainBytes === 0 || plainBytes > STATE_CHUNK_BYTES) {
    throw new FormatError(`a chunk of ${plainBytes} bytes is outside the limits`, section, offset);
  }
  if (view.getUint32(4, true) !== CHUNK_CODEC_ZSTD)
    throw new FormatError("the codec is not known", section, offset + 4);
  const plain = new Uint8Array(plainBytes);
  decompressFrame(zstd, plain, payload.subarray(CHUNK_HEAD_BYTES), section, offset + CHUNK_HEAD_BYTES);
  if (xxh3(plain) !== view.getBigUint64(8, true)) {
    throw new FormatError("the checksum of a chunk does not match", section, offset + 8);
  }
  return plain;
}
