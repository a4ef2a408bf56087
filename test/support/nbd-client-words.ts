const REPLY_MAGIC = Buffer.from([0x67, 0x44, 0x66, 0x98]);

/** What an NBD client says, in bytes. */
export class NbdClientWords {
  #handle = 0n;

  hello(): Uint8Array {
    return new Uint8Array([0, 0, 0, 3]);
  }

  /** An option that a server may not know. */
  structuredReplies(): Uint8Array {
    return this.#option(8, new Uint8Array(0));
  }

  go(name: string): Uint8Array {
    const text = new TextEncoder().encode(name);
    const data = new Uint8Array(6 + text.length);
    new DataView(data.buffer).setUint32(0, text.length);
    data.set(text, 4);
    return this.#option(7, data);
  }

  read(offset: number, sizeBytes: number): Uint8Array {
    return this.#request(0, offset, sizeBytes);
  }

  write(offset: number, bytes: Uint8Array): Uint8Array {
    return new Uint8Array(Buffer.concat([this.#request(1, offset, bytes.length), bytes]));
  }

  disconnect(): Uint8Array {
    return this.#request(2, 0, 0);
  }

  flush(): Uint8Array {
    return this.#request(3, 0, 0);
  }

  zero(offset: number, sizeBytes: number): Uint8Array {
    return this.#request(6, offset, sizeBytes);
  }

  /** The errors of the simple replies that came, in their order. */
  repliesIn(received: Buffer): number[] {
    const errors: number[] = [];
    for (let at = received.indexOf(REPLY_MAGIC); at >= 0; at = received.indexOf(REPLY_MAGIC, at + 16)) {
      if (at + 16 <= received.length) errors.push(received.readUInt32BE(at + 4));
    }
    return errors;
  }

  #option(option: number, data: Uint8Array): Uint8Array {
    const bytes = new Uint8Array(16 + data.length);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, 0x49484156454f5054n);
    view.setUint32(8, option);
    view.setUint32(12, data.length);
    bytes.set(data, 16);
    return bytes;
  }

  #request(type: number, offset: number, sizeBytes: number): Uint8Array {
    const bytes = new Uint8Array(28);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 0x25609513);
    view.setUint16(6, type);
    view.setBigUint64(8, this.#handle++);
    view.setBigUint64(16, BigInt(offset));
    view.setUint32(24, sizeBytes);
    return bytes;
  }
}
