/**
 * The server's side of NBD (doc/proto.md of the NBD project), as far as a client that only writes needs it: fixed newstyle
 * handshake, simple replies. Pure: bytes in, replies and requests out.
 */
import { FormatError } from "../../src/errors.ts";
import { MAX_NBD_OPTION_BYTES, MAX_NBD_WRITE_BYTES } from "../../src/limits.ts";

const MAGIC = { hello: 0x4e42444d41474943n, option: 0x49484156454f5054n, reply: 0x0003e889045565a9n };
const REQUEST_MAGIC = 0x25609513;
const SIMPLE_REPLY_MAGIC = 0x67446698;
/** FIXED_NEWSTYLE, NO_ZEROES. */
const HANDSHAKE_FLAGS = 3;
const OPTION = { exportName: 1, abort: 2, info: 6, go: 7 } as const;
const REPLY = {
  ack: 1,
  info: 3,
  unsupported: 0x8000_0001,
  invalid: 0x8000_0003,
  unknown: 0x8000_0006,
} as const;
const INFO_EXPORT = 0;
/** HAS_FLAGS, SEND_FLUSH, SEND_TRIM, SEND_WRITE_ZEROES. */
const EXPORT_FLAGS = 1 | 4 | 32 | 64;
const COMMAND = { write: 1, disconnect: 2, flush: 3, trim: 4, zero: 6 } as const;

const OPTION_HEAD_BYTES = 16;
const REQUEST_HEAD_BYTES = 28;
const EINVAL = 22;

export type NbdRequest =
  | { readonly type: "write"; readonly handle: bigint; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly type: "zero"; readonly handle: bigint; readonly offset: number; readonly sizeBytes: number }
  | { readonly type: "flush"; readonly handle: bigint };

export type NbdEvent =
  | { readonly kind: "reply"; readonly bytes: Uint8Array }
  | { readonly kind: "request"; readonly exportName: string; readonly request: NbdRequest }
  | { readonly kind: "end" };

type Wanted = "flags" | "option" | "option-data" | "request" | "write-data";

interface RequestHead {
  readonly type: number;
  readonly handle: bigint;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** The server's first word. */
export function nbdGreeting(): Uint8Array {
  const bytes = new Uint8Array(18);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC.hello);
  view.setBigUint64(8, MAGIC.option);
  view.setUint16(16, HANDSHAKE_FLAGS);
  return bytes;
}

/** @param error an errno, 0 for none */
export function nbdReply(handle: bigint, error = 0): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, SIMPLE_REPLY_MAGIC);
  view.setUint32(4, error);
  view.setBigUint64(8, handle);
  return bytes;
}

/** What one client sends, understood. A fault is final. */
export class NbdDecoder {
  #wanted: Wanted = "flags";
  #part = new Uint8Array(4);
  #have = 0;
  #option = 0;
  #head: RequestHead | undefined;
  #exportName: string | undefined;

  /** @param sizes Of each export, in bytes. */
  constructor(readonly sizes: ReadonlyMap<string, number>) {}

  /** @throws FormatError */
  *push(bytes: Uint8Array): Generator<NbdEvent, void> {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(this.#part.length - this.#have, bytes.length - at);
      this.#part.set(bytes.subarray(at, at + count), this.#have);
      this.#have += count;
      at += count;
      // A part of no bytes is complete at once.
      while (this.#have === this.#part.length) {
        const part = this.#part;
        yield* this.#take(part);
        if (this.#part === part) return;
      }
    }
  }

  /** Each ends with what comes next, or with the end. */
  *#take(part: Uint8Array): Generator<NbdEvent, void> {
    const view = new DataView(part.buffer);
    switch (this.#wanted) {
      case "flags":
        if ((view.getUint32(0) & ~HANDSHAKE_FLAGS) !== 0) throw fault("the client's flags are unknown");
        return this.#next("option", OPTION_HEAD_BYTES);
      case "option": {
        if (view.getBigUint64(0) !== MAGIC.option) throw fault("this is no option");
        this.#option = view.getUint32(8);
        const sizeBytes = view.getUint32(12);
        if (sizeBytes > MAX_NBD_OPTION_BYTES) throw fault(`an option of ${sizeBytes} bytes`);
        return this.#next("option-data", sizeBytes);
      }
      case "option-data":
        return yield* this.#onOption(part);
      case "request":
        return yield* this.#onRequest(view);
      case "write-data":
        return yield* this.#onWrite(part);
    }
  }

  *#onOption(data: Uint8Array): Generator<NbdEvent, void> {
    const option = this.#option;
    this.#next("option", OPTION_HEAD_BYTES);
    if (option === OPTION.abort) {
      yield { kind: "reply", bytes: optionReply(option, REPLY.ack) };
      yield { kind: "end" };
    } else if (option === OPTION.exportName) {
      const name = new TextDecoder().decode(data);
      const size = this.sizes.get(name);
      if (size === undefined) throw fault(`there is no export "${name}"`);
      this.#begin(name);
      yield { kind: "reply", bytes: exportFacts(size) };
    } else if (option === OPTION.go || option === OPTION.info) yield* this.#onGo(option, data);
    else yield { kind: "reply", bytes: optionReply(option, REPLY.unsupported) };
  }

  *#onGo(option: number, data: Uint8Array): Generator<NbdEvent, void> {
    const view = new DataView(data.buffer);
    const nameBytes = data.length < 6 ? Number.POSITIVE_INFINITY : view.getUint32(0);
    if (nameBytes > data.length - 6) {
      yield { kind: "reply", bytes: optionReply(option, REPLY.invalid) };
      return;
    }
    const name = new TextDecoder().decode(data.subarray(4, 4 + nameBytes));
    const size = this.sizes.get(name);
    if (size === undefined) {
      yield { kind: "reply", bytes: optionReply(option, REPLY.unknown) };
      return;
    }
    const info = new Uint8Array(12);
    new DataView(info.buffer).setUint16(0, INFO_EXPORT);
    info.set(exportFacts(size), 2);
    yield { kind: "reply", bytes: optionReply(option, REPLY.info, info) };
    yield { kind: "reply", bytes: optionReply(option, REPLY.ack) };
    if (option === OPTION.go) this.#begin(name);
  }

  #begin(name: string): void {
    this.#exportName = name;
    this.#next("request", REQUEST_HEAD_BYTES);
  }

  *#onRequest(view: DataView): Generator<NbdEvent, void> {
    if (view.getUint32(0) !== REQUEST_MAGIC) throw fault("this is no request");
    const [type, handle, sizeBytes] = [view.getUint16(6), view.getBigUint64(8), view.getUint32(24)];
    const head = { type, handle, sizeBytes, offset: Number(view.getBigUint64(16)) };
    this.#head = head;
    this.#next("request", REQUEST_HEAD_BYTES);
    switch (type) {
      case COMMAND.write:
        if (sizeBytes > MAX_NBD_WRITE_BYTES) throw fault(`a write of ${sizeBytes} bytes`);
        return this.#next("write-data", sizeBytes);
      case COMMAND.disconnect:
        return yield { kind: "end" };
      case COMMAND.flush:
        return yield this.#request({ type: "flush", handle });
      case COMMAND.zero:
      case COMMAND.trim:
        return yield this.#isWithin(head)
          ? this.#request({ type: "zero", handle, offset: head.offset, sizeBytes })
          : { kind: "reply", bytes: nbdReply(handle, EINVAL) };
      default:
        // Reading among them: what was written is on its way to another host.
        return yield { kind: "reply", bytes: nbdReply(handle, EINVAL) };
    }
  }

  *#onWrite(bytes: Uint8Array): Generator<NbdEvent, void> {
    const head = this.#head as RequestHead;
    const { handle, offset } = head;
    this.#next("request", REQUEST_HEAD_BYTES);
    if (this.#isWithin(head)) yield this.#request({ type: "write", handle, offset, bytes });
    else yield { kind: "reply", bytes: nbdReply(handle, EINVAL) };
  }

  #isWithin({ offset, sizeBytes }: RequestHead): boolean {
    const size = this.sizes.get(this.#exportName as string) ?? 0;
    return sizeBytes > 0 && offset + sizeBytes <= size;
  }

  #request(request: NbdRequest): NbdEvent {
    return { kind: "request", exportName: this.#exportName as string, request };
  }

  /** A new buffer each time: a write's bytes are given away. */
  #next(wanted: Wanted, sizeBytes: number): void {
    this.#wanted = wanted;
    this.#part = new Uint8Array(sizeBytes);
    this.#have = 0;
  }
}

/** u64 size, u16 flags: the end of the old handshake, and of the new one's information. */
function exportFacts(sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(10);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(sizeBytes));
  view.setUint16(8, EXPORT_FLAGS);
  return bytes;
}

function optionReply(option: number, type: number, data = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(20 + data.length);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, MAGIC.reply);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, 20);
  return bytes;
}

function fault(message: string): FormatError {
  return new FormatError(`this is not NBD as it should be: ${message}`, "nbd");
}
