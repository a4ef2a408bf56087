import { createCipheriv, createDecipheriv } from "node:crypto";
import { FormatError } from "../../src/errors.ts";

export const FILE_KEY_BYTES = 32;
export const SEAL_TAG_BYTES = 16;
export const CIPHER_NAME = "AES-256-GCM";
const NONCE_BYTES = 12;
/** u16 type, u64 record id, u32 frame number, u8 last: after the file's id and a zero byte. */
const PLACE_BYTES = 15;

/** What a sealed piece is bound to: moved, swapped or cut off, it does not open. */
export interface SealPlace {
  /** Of the sealed bytes in the file; with the frame number, it is the nonce, so that no two are the same in a file. */
  readonly position: number;
  readonly type: number;
  readonly recordId: bigint;
  /** 0 for a record's payload or table, then the frames from 1. */
  readonly frameNumber: number;
  /** The last piece of its record. */
  readonly isLast: boolean;
}

/** Seals the pieces of one file with its key, which no other file has. AES-256-GCM. */
export class FileCipher {
  readonly key: Uint8Array;
  readonly fileId: string;
  readonly #idBytes: Uint8Array;

  constructor(key: Uint8Array, fileId: string) {
    this.key = key;
    this.fileId = fileId;
    this.#idBytes = new TextEncoder().encode(`${fileId}\0`);
  }

  /** Ciphertext and tag: 16 bytes longer. */
  seal(plain: Uint8Array, place: SealPlace): Uint8Array {
    const cipher = createCipheriv("aes-256-gcm", this.key, nonceOf(place));
    cipher.setAAD(this.#boundTo(place));
    return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
  }

  /** @throws FormatError where it was changed, or is from another place */
  open(sealed: Uint8Array, place: SealPlace, section: string): Uint8Array {
    const tagAt = sealed.length - SEAL_TAG_BYTES;
    try {
      const cipher = createDecipheriv("aes-256-gcm", this.key, nonceOf(place));
      cipher.setAAD(this.#boundTo(place));
      cipher.setAuthTag(sealed.subarray(tagAt));
      const plain = cipher.update(sealed.subarray(0, tagAt));
      cipher.final();
      return plain;
    } catch (cause) {
      throw new FormatError(
        "it does not decrypt: it was changed, or is not from here",
        section,
        place.position,
        {
          cause,
        },
      );
    }
  }

  #boundTo({ type, recordId, frameNumber, isLast }: SealPlace): Uint8Array {
    const bytes = new Uint8Array(this.#idBytes.length + PLACE_BYTES);
    bytes.set(this.#idBytes);
    const view = new DataView(bytes.buffer, this.#idBytes.length);
    view.setUint16(0, type, true);
    view.setBigUint64(2, recordId, true);
    view.setUint32(10, frameNumber, true);
    view.setUint8(14, isLast ? 1 : 0);
    return bytes;
  }
}

function nonceOf({ position, frameNumber }: SealPlace): Uint8Array {
  const bytes = new Uint8Array(NONCE_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(position), true);
  view.setUint32(8, frameNumber, true);
  return bytes;
}
