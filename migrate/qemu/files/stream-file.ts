import { Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { CompatibilityError, FormatError, VhuError } from "../../../src/errors.ts";
import { FileInput } from "../../snapshot/mod.ts";
import { STREAM_MAGIC } from "../stream-format.ts";
import { isLibvirtImage, type LibvirtHead, type LibvirtImage, readLibvirtHead } from "./libvirt-header.ts";
import { demandedCapabilities, readMappedRamHead } from "./mapped-ram-head.ts";
import { sequentialOf } from "./mapped-ram-reader.ts";

/** How QEMU's stream stands in a file. */
export type StreamLayout = "sequential" | "mapped-ram";

const PIECE_BYTES = 1 << 20;
const START_BYTES = 64 * 1024;
/** The first word of a channel of multifd (migration/multifd.h, MULTIFD_MAGIC). */
const MULTIFD_MAGIC = 0x11223344;

/** Whether a file is of QEMU or libvirt, by its first bytes; false as well where it cannot be read. */
export function isQemuFile(path: string): boolean {
  try {
    using input = FileInput.open(path);
    const bytes = start(input, 0);
    const magic = bytes.length < 4 ? 0 : new DataView(bytes.buffer).getUint32(0);
    return [STREAM_MAGIC, MULTIFD_MAGIC].includes(magic) || isLibvirtImage(bytes);
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    return false;
  }
}

/** A file with QEMU's stream that vhu has not written: of QEMU itself, or of libvirt. */
export class StreamFile implements Disposable {
  readonly #input: FileInput;
  readonly #head: LibvirtHead | undefined;
  readonly layout: StreamLayout;
  #doneBytes = 0;

  private constructor(input: FileInput) {
    this.#input = input;
    this.#head = isLibvirtImage(start(input, 0)) ? readLibvirtHead(this.#read) : undefined;
    this.layout = this.#isCompressed ? "sequential" : this.#layoutOf(start(input, this.#base));
  }

  /** @throws FormatError, CompatibilityError for a kind that cannot be taken apart, SyscallError */
  static open(path: string): StreamFile {
    const input = FileInput.open(path);
    try {
      return new StreamFile(input);
    } catch (error) {
      input[Symbol.dispose]();
      throw error;
    }
  }

  /** What libvirt has put in front of the stream. */
  get libvirt(): LibvirtImage | undefined {
    return this.#head;
  }

  get sizeBytes(): number {
    return this.#input.sizeBytes;
  }

  /** Of the file, that have been read. */
  get doneBytes(): number {
    return this.#doneBytes;
  }

  /** The stream in its sequential form. Each piece is valid until the next. @throws FormatError where it is cut off */
  async *pieces(): AsyncGenerator<Uint8Array, void> {
    if (this.layout === "mapped-ram") {
      const { sizeBytes } = this.#input;
      yield* sequentialOf(readMappedRamHead(this.#read, this.#base, sizeBytes), this.#read, sizeBytes);
      return;
    }
    if (!this.#isCompressed) {
      yield* this.#raw();
      return;
    }
    const unpack = this.#head?.format === "gzip" ? createGunzip() : createZstdDecompress();
    const packed = Readable.from(this.#raw(true));
    packed.on("error", (error) => unpack.destroy(error));
    try {
      yield* packed.pipe(unpack) as AsyncIterable<Uint8Array>;
    } catch (cause) {
      if (!(cause instanceof Error) || cause instanceof VhuError) throw cause;
      throw new FormatError(`the compressed stream is damaged: ${cause.message}`, "virsh save file", -1, {
        cause,
      });
    } finally {
      packed.destroy();
      unpack.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.#input[Symbol.dispose]();
  }

  get #base(): number {
    return this.#head?.streamOffset ?? 0;
  }

  get #isCompressed(): boolean {
    const format = this.#head?.format ?? "raw";
    if (["raw", "sparse"].includes(format)) return false;
    if (["gzip", "zstd"].includes(format)) return true;
    throw new CompatibilityError(
      `the virsh save file is compressed with ${format}, which vhu does not unpack: gzip, zstd and none it does (save_image_format in qemu.conf)`,
    );
  }

  #layoutOf(bytes: Uint8Array): StreamLayout {
    const magic = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length >= 4 && magic.getUint32(0) === MULTIFD_MAGIC) {
      throw new CompatibilityError(
        "this is one channel of a multifd migration, which cannot be converted: migrate without it",
      );
    }
    if (bytes.length < 4 || magic.getUint32(0) !== STREAM_MAGIC) {
      throw new FormatError(
        "this is neither a snapshot nor a QEMU migration stream",
        "QEMU stream",
        this.#base,
      );
    }
    const demanded = demandedCapabilities(bytes);
    const others = demanded.filter((name) => name !== "mapped-ram");
    if (others.length > 0) {
      throw new CompatibilityError(
        `the stream was made with ${others.join(", ")}: its memory is not in it; switch that off and migrate again`,
      );
    }
    return demanded.length > 0 ? "mapped-ram" : "sequential";
  }

  /** @param isKept The pieces stay valid. */
  *#raw(isKept = false): Generator<Uint8Array, void> {
    const { sizeBytes } = this.#input;
    for (let at = this.#base; at < sizeBytes; at += PIECE_BYTES) {
      const piece = this.#read(at, Math.min(PIECE_BYTES, sizeBytes - at));
      yield isKept ? piece.slice() : piece;
    }
  }

  readonly #read = (offset: number, sizeBytes: number): Uint8Array => {
    this.#doneBytes = Math.max(this.#doneBytes, offset + sizeBytes);
    return this.#input.read(offset, sizeBytes, "QEMU stream");
  };
}

function start(input: FileInput, offset: number): Uint8Array {
  const sizeBytes = Math.max(0, Math.min(START_BYTES, input.sizeBytes - offset));
  return input.read(offset, sizeBytes, "QEMU stream").slice();
}
