import { type Fd, NativeBuffer, type UnixSocket, WOULD_BLOCK } from "../../../src/sys/mod.ts";

/** Frames as they are on the wire of QEMU's `-netdev stream`. */
export function wire(...frames: readonly Uint8Array[]): Uint8Array {
  const parts = frames.map((bytes) => {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length);
    return Buffer.concat([length, bytes]);
  });
  return new Uint8Array(Buffer.concat(parts));
}

/** The other side of the stream. */
export class Peer implements Disposable {
  #bytes = Buffer.alloc(0);

  constructor(readonly socket: UnixSocket) {}

  write(bytes: Uint8Array): void {
    const buffer = new NativeBuffer(bytes.length);
    buffer.bytes.set(bytes);
    for (let sent = 0; sent < bytes.length; ) sent += this.socket.send(buffer, sent, bytes.length - sent);
  }

  /** The next frame that is there as a whole. */
  read(): Uint8Array | undefined {
    const buffer = new NativeBuffer(65_536);
    const fds: Fd[] = [];
    for (;;) {
      if (this.#bytes.length >= 4) {
        const end = 4 + this.#bytes.readUInt32BE(0);
        if (this.#bytes.length >= end) {
          const bytes = new Uint8Array(this.#bytes.subarray(4, end));
          this.#bytes = this.#bytes.subarray(end);
          return bytes;
        }
      }
      const count = this.socket.receive(buffer, 0, buffer.sizeBytes, fds, true);
      if (count === WOULD_BLOCK || count === 0) return undefined;
      this.#bytes = Buffer.concat([this.#bytes, buffer.bytes.slice(0, count)]);
    }
  }

  /** Reads and forgets everything that is there. */
  skipAll(): void {
    while (this.read() !== undefined);
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }
}
