import { createCipheriv, createDecipheriv } from "node:crypto";
import { readSync, writeSync } from "node:fs";
import { FormatError } from "../../src/errors.ts";
import { eventLoopTurn, type Fd, sizeOf, truncateFile } from "../../src/sys/mod.ts";
import { IMAGE_BLOCK_BYTES, imageBlocks, type WalkOptions } from "./image-blocks.ts";

/** docs/snapshot-format.md has the form. */
const MAGIC = Buffer.from("VHUDISK1", "latin1");
const TAG_BYTES = 16;
const NUMBER_BYTES = 8;
const FRAME_BYTES = NUMBER_BYTES + IMAGE_BLOCK_BYTES + TAG_BYTES;
const LAST_FRAME_BYTES = 2 * NUMBER_BYTES + TAG_BYTES;
const NONCE_BYTES = 12;
export const SEALED_IMAGE_KEY_BYTES = 32;

/**
 * Writes an image encrypted (AES-256-GCM), with a key that seals nothing else: each block that is not all zeros with its place,
 * then how large the image is and how many blocks there were. Moved, swapped, changed or cut off, it does not open.
 */
export async function sealImage(
  image: Fd,
  sizeBytes: number,
  target: Fd,
  key: Uint8Array,
  options: WalkOptions = {},
): Promise<void> {
  let count = 0;
  writeFully(target, MAGIC);
  for await (const { index, bytes } of imageBlocks(image, sizeBytes, options)) {
    writeFully(target, sealed(key, count, false, Buffer.concat([numbers(index), bytes])));
    count += 1;
  }
  writeFully(target, sealed(key, count, true, numbers(sizeBytes, count)));
}

/**
 * Writes the image that a sealed one holds into an empty file; without a target it is only checked.
 * @throws FormatError where it was changed, or is not what the key seals
 */
export async function openSealedImage(
  source: Fd,
  target: Fd | undefined,
  key: Uint8Array,
  { signal, onProgress }: WalkOptions = {},
): Promise<void> {
  const content = sizeOf(source) - MAGIC.length - LAST_FRAME_BYTES;
  const count = content / FRAME_BYTES;
  if (!Number.isInteger(count) || count < 0 || !readAt(source, 0, MAGIC.length).equals(MAGIC)) {
    throw new FormatError("it is no sealed disk copy, or is not whole", source.label, 0);
  }
  const end = MAGIC.length + content;
  const last = opened(source, key, count, true, end, LAST_FRAME_BYTES);
  const [imageBytes, blocks] = [numberAt(last, 0), numberAt(last, NUMBER_BYTES)];
  if (blocks !== count)
    throw new FormatError(`it has ${count} blocks, and was made with ${blocks}`, source.label, end);
  if (target !== undefined) truncateFile(target, imageBytes);
  let next = 0;
  for (let frame = 0; frame < count; frame += 1) {
    signal?.throwIfAborted();
    const position = MAGIC.length + frame * FRAME_BYTES;
    const plain = opened(source, key, frame, false, position, FRAME_BYTES);
    const index = numberAt(plain, 0);
    const offset = index * IMAGE_BLOCK_BYTES;
    if (index < next || offset >= imageBytes) {
      throw new FormatError(`block ${index} is out of place`, source.label, position);
    }
    next = index + 1;
    const block = plain.subarray(
      NUMBER_BYTES,
      NUMBER_BYTES + Math.min(IMAGE_BLOCK_BYTES, imageBytes - offset),
    );
    if (target !== undefined) writeFully(target, block, offset);
    onProgress?.(offset + block.length);
    await eventLoopTurn();
  }
}

function sealed(key: Uint8Array, frame: number, isLast: boolean, plain: Uint8Array): Buffer {
  const cipher = createCipheriv("aes-256-gcm", key, nonceOf(frame, isLast));
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

function opened(
  source: Fd,
  key: Uint8Array,
  frame: number,
  isLast: boolean,
  position: number,
  sizeBytes: number,
): Buffer {
  const bytes = readAt(source, position, sizeBytes);
  const tagAt = bytes.length - TAG_BYTES;
  try {
    const cipher = createDecipheriv("aes-256-gcm", key, nonceOf(frame, isLast));
    cipher.setAuthTag(bytes.subarray(tagAt));
    return Buffer.concat([cipher.update(bytes.subarray(0, tagAt)), cipher.final()]);
  } catch (cause) {
    const what = "it does not decrypt: it was changed, or is not this snapshot's";
    throw new FormatError(what, source.label, position, { cause });
  }
}

/** u64 frame number, u32 1 for the last frame. */
function nonceOf(frame: number, isLast: boolean): Uint8Array {
  const bytes = new Uint8Array(NONCE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(frame), true);
  view.setUint32(NUMBER_BYTES, isLast ? 1 : 0, true);
  return bytes;
}

function numbers(...values: number[]): Uint8Array {
  return new Uint8Array(new BigUint64Array(values.map(BigInt)).buffer);
}

/** What was sealed is ours; above 2^53 it is no size that a file has. */
function numberAt(bytes: Buffer, offset: number): number {
  return Number(bytes.readBigUInt64LE(offset));
}

function readAt(source: Fd, position: number, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let done = 0;
  for (let count = -1; count !== 0 && done < sizeBytes; done += count) {
    count = readSync(source.number, bytes, done, sizeBytes - done, position + done);
  }
  return done === sizeBytes ? bytes : bytes.subarray(0, done);
}

function writeFully(target: Fd, bytes: Uint8Array, offset?: number): void {
  for (let done = 0; done < bytes.length; ) {
    const at = offset === undefined ? null : offset + done;
    done += writeSync(target.number, bytes, done, bytes.length - done, at);
  }
}
