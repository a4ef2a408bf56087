import assert from "node:assert/strict";
import { UsageError } from "../../src/errors.ts";
import { MAX_DEVICE_STATE_BYTES, STATE_CHUNK_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { viewOf } from "./bytes.ts";
import { createZstd, frameBoundBytes } from "./compression.ts";
import type { StreamEntry } from "./index-table.ts";
import { chunkId, RECORD_CHECKSUM_BYTES, RECORD_HEAD_BYTES, RecordFlag, recordTypeName } from "./record.ts";
import type { RecordOutput } from "./record-output.ts";

/** u32 plain size, u8 codec (1 = zstd), u8[3] zero, u64 xxh3 of the plain bytes, frame. */
export const CHUNK_HEAD_BYTES = 16;
export const CHUNK_CODEC_ZSTD = 1;

/** Takes a byte stream as it comes and writes it in records of up to 1 MiB, each a zstd frame of its own. */
export class StreamWriter {
  readonly #output: RecordOutput;
  readonly #type: number;
  readonly #streamId: number;
  readonly #done: (entry: StreamEntry) => void;
  readonly #zstd = createZstd();
  readonly #hash = new Bun.CryptoHasher("sha256");
  readonly #plain = new Uint8Array(STATE_CHUNK_BYTES);
  readonly #room = new Uint8Array(
    RECORD_HEAD_BYTES + CHUNK_HEAD_BYTES + frameBoundBytes(STATE_CHUNK_BYTES) + RECORD_CHECKSUM_BYTES,
  );
  #held = 0;
  #chunkCount = 0;
  #sizeBytes = 0;
  #isFinished = false;

  /** @param done Called once, by `finish`. */
  constructor(output: RecordOutput, type: number, streamId: number, done: (entry: StreamEntry) => void) {
    this.#output = output;
    this.#type = type;
    this.#streamId = streamId;
    this.#done = done;
  }

  /** Bytes of any number; they are copied. @throws UsageError above 64 GiB, SyscallError */
  write(chunk: Uint8Array): void {
    assert(!this.#isFinished, "the stream is finished");
    if (this.#sizeBytes + chunk.length > MAX_DEVICE_STATE_BYTES) {
      throw new UsageError(
        `the ${recordTypeName(this.#type)} is larger than ${MAX_DEVICE_STATE_BYTES} bytes`,
      );
    }
    this.#hash.update(chunk);
    this.#sizeBytes += chunk.length;
    for (let at = 0; at < chunk.length; ) {
      const piece = chunk.subarray(at, at + STATE_CHUNK_BYTES - this.#held);
      this.#plain.set(piece, this.#held);
      this.#held += piece.length;
      at += piece.length;
      if (this.#held === STATE_CHUNK_BYTES) this.#flush();
    }
  }

  /** The whole stream was given. */
  finish(): { sizeBytes: number; sha256: string } {
    assert(!this.#isFinished, "the stream is finished");
    this.#flush();
    this.#isFinished = true;
    const sha256 = this.#hash.digest("hex");
    this.#done({
      type: this.#type,
      streamId: this.#streamId,
      chunkCount: this.#chunkCount,
      sizeBytes: this.#sizeBytes,
      sha256,
    });
    return { sizeBytes: this.#sizeBytes, sha256 };
  }

  #flush(): void {
    if (this.#held === 0) return;
    const plain = this.#plain.subarray(0, this.#held);
    const frameStart = RECORD_HEAD_BYTES + CHUNK_HEAD_BYTES;
    const view = viewOf(this.#room);
    view.setUint32(RECORD_HEAD_BYTES, plain.length, true);
    view.setUint32(RECORD_HEAD_BYTES + 4, CHUNK_CODEC_ZSTD, true);
    view.setBigUint64(RECORD_HEAD_BYTES + 8, xxh3(plain), true);
    const frameBytes = this.#zstd.compress(this.#room.subarray(frameStart), plain);
    const room = this.#room.subarray(0, frameStart + frameBytes + RECORD_CHECKSUM_BYTES);
    const id = chunkId(this.#streamId, this.#chunkCount);
    this.#output.recordInPlace(this.#type, RecordFlag.critical, id, room);
    this.#chunkCount += 1;
    this.#held = 0;
  }
}
