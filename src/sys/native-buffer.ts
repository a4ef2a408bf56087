import { ptr } from "bun:ffi";

/**
 * A block of JavaScript memory with a stable address that C may be given.
 *
 * The address of a typed array that owns its storage goes stale once `.buffer`, `.subarray` or a DataView is taken
 * (measured); an explicit ArrayBuffer's does not move. Keep the NativeBuffer alive for as long as C may write to it.
 */
export class NativeBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly address: number;

  constructor(readonly sizeBytes: number) {
    const storage = new ArrayBuffer(Math.max(sizeBytes, 16));
    this.bytes = new Uint8Array(storage, 0, sizeBytes);
    this.view = new DataView(storage);
    this.address = Number(ptr(storage));
  }

  /** Writes an address or length at `offset` as the 8 bytes that C expects. */
  setPointer(offset: number, value: number): void {
    this.view.setUint32(offset, value >>> 0, true);
    this.view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
  }

  /** A C string, NUL included. */
  static cString(text: string): NativeBuffer {
    const encoded = new TextEncoder().encode(text);
    const buffer = new NativeBuffer(encoded.length + 1);
    buffer.bytes.set(encoded);
    return buffer;
  }
}

/** The address of a view's first byte. The view must stand over an explicit ArrayBuffer and must not be empty. */
export function addressOf(view: Uint8Array): number {
  return Number(ptr(view.buffer)) + view.byteOffset;
}
