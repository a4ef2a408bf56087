import { FormatError, PeerError } from "../../src/errors.ts";
import { NativeBuffer, type UnixSocket } from "../../src/sys/mod.ts";
import {
  CONTENT_BYTES,
  GREETING_BYTES,
  type MultifdPacket,
  PACKET_BYTES,
  PAGE_BYTES,
  readGreeting,
  readPacket,
} from "./packet.ts";

/** Reads a channel in line, in a thread that has nothing else to do. */
export class ChannelReader {
  readonly #socket: UnixSocket;
  readonly #head = new NativeBuffer(PACKET_BYTES);
  readonly #content = new NativeBuffer(CONTENT_BYTES);

  /** Of a socket that blocks. */
  constructor(socket: UnixSocket) {
    this.#socket = socket;
  }

  /** Waits for the next packet; its content is valid until the next call. Undefined at the end. @throws FormatError, PeerError */
  next(): { readonly packet: MultifdPacket; readonly content: Uint8Array } | undefined {
    if (!this.#read(this.#head, PACKET_BYTES)) return undefined;
    const packet = readPacket(this.#head.bytes);
    const sizeBytes = packet.offsets.length * PAGE_BYTES;
    if (sizeBytes > 0 && !this.#read(this.#content, sizeBytes)) throw cutOff();
    return { packet, content: this.#content.bytes.subarray(0, sizeBytes) };
  }

  /** What QEMU says first, before all packets. */
  readGreeting(): number | undefined {
    return this.#read(this.#head, GREETING_BYTES) ? readGreeting(this.#head.bytes) : undefined;
  }

  /** False where the channel has ended before the first byte. */
  #read(target: NativeBuffer, sizeBytes: number): boolean {
    for (let have = 0; have < sizeBytes; ) {
      const count = this.#socket.receive(target, have, sizeBytes - have, []);
      if (count < 0) throw new PeerError("QEMU is silent in the middle of a multifd channel");
      if (count === 0 && have > 0) throw cutOff();
      if (count === 0) return false;
      have += count;
    }
    return true;
  }
}

function cutOff(): FormatError {
  return new FormatError("a multifd channel was cut off in the middle of a packet", "multifd");
}
