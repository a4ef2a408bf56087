/**
 * zstd: the zstd-napi addon where it could be built, else the one in Bun. Both write frames with a content size, and
 * decompress into no more than the size that was announced. Frames have no checksum of zstd's own: all who use them have the
 * xxh3 of the content, and zstd's would be 5 % of packing and 8 to 10 % of unpacking. Loaded when first used.
 */
import { FormatError } from "../../src/errors.ts";

export type CompressionBackend = "zstd-napi" | "bun";

/** Level 1: 1.4 GB/s on one thread, where level 3 makes files 5 % smaller at 0.9 GB/s. */
export const DEFAULT_LEVEL = 1;

/** One user's contexts: making a new one for each frame is 8 times slower. Not for two threads at once. */
export interface Zstd {
  readonly backend: CompressionBackend;
  /** Compresses all of `source` to the start of `target` and returns the size; `target` has {@link frameBoundBytes}. */
  compress(target: Uint8Array, source: Uint8Array): number;
  /** Fills all of `target` from one frame. @throws Error if the frame is damaged or of another size. */
  decompress(target: Uint8Array, source: Uint8Array): void;
}

/** The most that a frame of `plainBytes` can need (ZSTD_COMPRESSBOUND for up to 1 MiB, and the checksum). */
export function frameBoundBytes(plainBytes: number): number {
  return plainBytes + (plainBytes >>> 8) + 1024;
}

/** Which zstd this process has. */
export function compressionBackend(): CompressionBackend {
  return loadAddon() === undefined ? "bun" : "zstd-napi";
}

/** @param backend Told by tests only. */
export function createZstd(level = DEFAULT_LEVEL, backend = compressionBackend()): Zstd {
  const addon = backend === "zstd-napi" ? loadAddon() : undefined;
  return addon === undefined ? bunZstd(level) : addonZstd(addon, level);
}

/** Decompresses what a snapshot says to be a frame. @throws FormatError */
export function decompressFrame(
  zstd: Zstd,
  target: Uint8Array,
  frame: Uint8Array,
  section: string,
  offset: number,
): void {
  try {
    zstd.decompress(target, frame);
  } catch (cause) {
    throw new FormatError(`a zstd frame is damaged: ${(cause as Error).message}`, section, offset, { cause });
  }
}

/** What is used of zstd-napi's binding. Its own types are not at hand where the optional addon could not be built. */
interface Addon {
  readonly CCtx: new () => {
    setParameter(parameter: number, value: number): void;
    compress2(target: Uint8Array, source: Uint8Array): number;
  };
  readonly DCtx: new () => {
    setParameter(parameter: number, value: number): void;
    decompress(target: Uint8Array, source: Uint8Array): number;
  };
  readonly CParameter: { readonly compressionLevel: number };
}
/** ZSTD_d_forceIgnoreChecksum of zstd.h, for frames of files that earlier versions wrote. */
const FORCE_IGNORE_CHECKSUM = 1002;
let addon: Addon | undefined | "missing";

function loadAddon(): Addon | undefined {
  if (addon === undefined) {
    try {
      addon = require("zstd-napi/binding") as Addon;
    } catch {
      // An optional dependency: it needs a compiler and Node's headers. `vhu doctor` says which one is in use.
      addon = "missing";
    }
  }
  return addon === "missing" ? undefined : addon;
}

function addonZstd(binding: Addon, level: number): Zstd {
  const compressor = new binding.CCtx();
  const decompressor = new binding.DCtx();
  compressor.setParameter(binding.CParameter.compressionLevel, level);
  decompressor.setParameter(FORCE_IGNORE_CHECKSUM, 1);
  return {
    backend: "zstd-napi",
    compress: (target, source) => compressor.compress2(target, source),
    decompress: (target, source) => expectSize(decompressor.decompress(target, source), target.length),
  };
}

function bunZstd(level: number): Zstd {
  const { constants, zstdCompressSync, zstdDecompressSync } =
    require("node:zlib") as typeof import("node:zlib");
  const params = { [constants.ZSTD_c_compressionLevel]: level };
  return {
    backend: "bun",
    compress: (target, source) => {
      const frame = zstdCompressSync(source, { params });
      target.set(frame);
      return frame.length;
    },
    decompress: (target, source) => {
      const plain = zstdDecompressSync(source, { maxOutputLength: target.length });
      expectSize(plain.length, target.length);
      target.set(plain);
    },
  };
}

function expectSize(actual: number, expected: number): void {
  if (actual !== expected) throw new Error(`it holds ${actual} bytes, not ${expected}`);
}
