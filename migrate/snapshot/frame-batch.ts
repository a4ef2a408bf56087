import { MAX_SNAPSHOT_BATCH_EXTENTS, MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { viewOf } from "./bytes.ts";
import { frameBoundBytes } from "./compression.ts";
import { EXTENT_ENTRY_BYTES, type Extent, encodeExtent, type Frame, LAST_FRAME } from "./extent.ts";
import { type FileCipher, SEAL_TAG_BYTES } from "./file-cipher.ts";
import { WINDOW_PAGES } from "./pack-window.ts";
import { RECORD_CHECKSUM_BYTES, RECORD_HEAD_BYTES, RecordFlag, RecordType } from "./record.ts";
import type { RecordOutput } from "./record-output.ts";

/** u32 extents, u32 zero: before the table of a batch. */
export const BATCH_HEAD_BYTES = 8;
/** Frames in memory before a record is written. */
const BATCH_FRAME_BYTES = 4 * 1024 * 1024;
/** Where frames start in the buffer, so that head and table always fit in front of them. */
const FRAMES_START = RECORD_HEAD_BYTES + BATCH_HEAD_BYTES + MAX_SNAPSHOT_BATCH_EXTENTS * EXTENT_ENTRY_BYTES;

export type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** The extents and frames of one record while it grows. */
export class FrameBatch {
  readonly #output: RecordOutput;
  readonly #maxExtents: number;
  #extents: Mutable<Extent>[] = [];
  #buffer: Uint8Array | undefined;
  /** Where the next frame goes in the buffer. Frames of the open batch carry offsets in the buffer, made negative. */
  #fill = FRAMES_START;

  /** @param maxExtents Of a record. */
  constructor(output: RecordOutput, maxExtents = MAX_SNAPSHOT_BATCH_EXTENTS) {
    this.#output = output;
    this.#maxExtents = maxExtents;
  }

  get last(): Mutable<Extent> | undefined {
    return this.#extents.at(-1);
  }

  /** Takes a copy of a frame; its place in the file is known when the batch is flushed. */
  addFrame(bytes: Uint8Array, plainBytes: number, checksum: bigint): Mutable<Frame> {
    this.#buffer ??= new Uint8Array(
      FRAMES_START + BATCH_FRAME_BYTES + frameBoundBytes(MAX_SNAPSHOT_FRAME_BYTES) + RECORD_CHECKSUM_BYTES,
    );
    const frame = { offset: -this.#fill, sizeBytes: bytes.length, plainBytes, checksum };
    this.#buffer.set(bytes, this.#fill);
    this.#fill += bytes.length;
    return frame;
  }

  /** The bytes of a frame that is still here. */
  openFrame(frame: Frame): Uint8Array | undefined {
    return frame.offset < 0
      ? this.#buffer?.subarray(-frame.offset, -frame.offset + frame.sizeBytes)
      : undefined;
  }

  add(extent: Mutable<Extent>): void {
    if (this.#extents.length === this.#maxExtents) this.flush();
    this.#extents.push(extent);
  }

  /** Between windows: the extents of a window and their frame belong into one record. */
  flushIfFull(): void {
    const isFull = this.#fill - FRAMES_START >= BATCH_FRAME_BYTES;
    const mostOfWindow = Math.min(WINDOW_PAGES, this.#maxExtents);
    if (isFull || this.#extents.length > this.#maxExtents - mostOfWindow) this.flush();
  }

  /** One record: the table goes right in front of the frames, so that the whole is one piece of the buffer. */
  flush(): void {
    const extents = this.#extents;
    if (extents.length === 0) return;
    const buffer = this.#buffer ?? new Uint8Array(FRAMES_START + RECORD_CHECKSUM_BYTES);
    const tableStart = FRAMES_START - extents.length * EXTENT_ENTRY_BYTES;
    const recordStart = tableStart - BATCH_HEAD_BYTES - RECORD_HEAD_BYTES;
    const view = viewOf(buffer);
    view.setUint32(tableStart - BATCH_HEAD_BYTES, extents.length, true);
    view.setUint32(tableStart - BATCH_HEAD_BYTES + 4, 0, true);
    buffer.fill(0, tableStart, FRAMES_START);
    if (this.#output.cipher !== undefined) {
      this.#flushSealed(buffer, this.#output.cipher);
      return;
    }
    const toFile = this.#output.position - recordStart;
    for (const [index, extent] of extents.entries()) {
      const frame = extent.frame as Mutable<Frame> | undefined;
      if (frame !== undefined && frame.offset < 0) frame.offset = toFile - frame.offset;
      encodeExtent(view, tableStart + index * EXTENT_ENTRY_BYTES, extent);
    }
    const room = buffer.subarray(recordStart, this.#fill + RECORD_CHECKSUM_BYTES);
    const id = BigInt(this.#output.entries.length);
    this.#output.storedRecord(RecordType.extents, RecordFlag.critical, id, room);
    this.#reset();
  }

  /** The count, then the sealed table, then each frame sealed by itself: frames are read at random. */
  #flushSealed(buffer: Uint8Array, cipher: FileCipher): void {
    const extents = this.#extents;
    const recordId = BigInt(this.#output.entries.length);
    const frames = [...new Set(extents.map(({ frame }) => frame as Mutable<Frame> | undefined))].filter(
      (frame) => frame !== undefined && frame.offset < 0,
    ) as Mutable<Frame>[];
    frames.sort((a, b) => b.offset - a.offset);
    const payloadStart = this.#output.position + RECORD_HEAD_BYTES;
    const table = new Uint8Array(extents.length * EXTENT_ENTRY_BYTES);
    let position = payloadStart + BATCH_HEAD_BYTES + table.length + SEAL_TAG_BYTES;
    const sealed = frames.map((frame, index) => {
      const isLast = index === frames.length - 1;
      const place = { position, type: RecordType.extents, recordId, frameNumber: index + 1, isLast };
      const bytes = cipher.seal(buffer.subarray(-frame.offset, -frame.offset + frame.sizeBytes), place);
      frame.offset = position;
      frame.sizeBytes = bytes.length;
      frame.sealNumber = index + 1 + (isLast ? LAST_FRAME : 0);
      position += bytes.length;
      return bytes;
    });
    for (const [index, extent] of extents.entries()) {
      encodeExtent(viewOf(table), index * EXTENT_ENTRY_BYTES, extent);
    }
    const tablePlace = {
      position: payloadStart + BATCH_HEAD_BYTES,
      type: RecordType.extents,
      recordId,
      frameNumber: 0,
    };
    const room = new Uint8Array(position - payloadStart + RECORD_HEAD_BYTES + RECORD_CHECKSUM_BYTES);
    viewOf(room).setUint32(RECORD_HEAD_BYTES, extents.length, true);
    let at = RECORD_HEAD_BYTES + BATCH_HEAD_BYTES;
    for (const bytes of [cipher.seal(table, { ...tablePlace, isLast: frames.length === 0 }), ...sealed]) {
      room.set(bytes, at);
      at += bytes.length;
    }
    const flags = RecordFlag.critical | RecordFlag.encrypted;
    this.#output.storedRecord(RecordType.extents, flags, recordId, room);
    this.#reset();
  }

  #reset(): void {
    this.#extents = [];
    this.#fill = FRAMES_START;
  }
}
