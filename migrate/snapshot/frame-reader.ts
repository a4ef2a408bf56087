import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { createZstd, decompressFrame, type Zstd } from "./compression.ts";
import type { Extent, Frame } from "./extent.ts";
import type { FileInput } from "./file-input.ts";
import { framePlace } from "./frame-place.ts";

/** What of an extent is needed to read it. */
export type FramePart = Pick<Extent, "regionId" | "offset" | "sizeBytes" | "skipBytes"> & {
  readonly frame: Frame;
  /** Of the record that the frame is in: needed where it is sealed. */
  readonly recordId?: bigint;
};

/** Unpacks frames and checks them. The last one is kept: extents that share it often follow each other. */
export class FrameReader {
  readonly #plain = new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES);
  #zstd: Zstd | undefined;
  #kept: { readonly input: FileInput; readonly offset: number; readonly sizeBytes: number } | undefined;

  /**
   * The bytes of an extent, checked; valid until the next call.
   *
   * @throws FormatError
   */
  read(input: FileInput, part: FramePart): Uint8Array {
    const { frame, skipBytes, sizeBytes } = part;
    const isKept = this.#kept?.input === input && this.#kept.offset === frame.offset;
    if (!isKept || this.#kept?.sizeBytes !== frame.plainBytes) this.#unpack(input, part);
    return this.#plain.subarray(skipBytes, skipBytes + sizeBytes);
  }

  #unpack(input: FileInput, { frame, regionId, offset, recordId }: FramePart): void {
    this.#kept = undefined;
    const plain = this.#plain.subarray(0, frame.plainBytes);
    const stored = input.read(frame.offset, frame.sizeBytes, "extent");
    const bytes =
      input.cipher?.open(stored, framePlace(frame, recordId ?? 0n), `memory region ${regionId}`) ?? stored;
    this.#zstd ??= createZstd();
    decompressFrame(this.#zstd, plain, bytes, `memory region ${regionId}`, frame.offset);
    if (xxh3(plain) !== frame.checksum) {
      const where = `memory region ${regionId} at 0x${offset.toString(16)}`;
      throw new FormatError("the checksum of the memory does not match", where, frame.offset);
    }
    this.#kept = { input, offset: frame.offset, sizeBytes: frame.plainBytes };
  }
}
