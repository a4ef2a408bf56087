import { FormatError } from "../../src/errors.ts";
import { MAX_NET_FRAME_BYTES, MAX_NET_QUEUE_BYTES } from "../../src/limits.ts";
import { NativeBuffer } from "../../src/sys/mod.ts";
import { ETHERNET_HEADER_BYTES, NET_HEADER_BYTES } from "./config.ts";

/** QEMU's framing on stream sockets: a big-endian u32 with the frame's length, then the frame, without a virtio header. */
export const LENGTH_BYTES = 4;

/** What has come in from a stream: whole frames to be taken, and the beginning of the next. */
export class StreamInput {
  readonly buffer = new NativeBuffer(MAX_NET_QUEUE_BYTES);
  readonly #frame = new Uint8Array(MAX_NET_FRAME_BYTES);
  #frameBytes = 0;
  #start = 0;
  #end = 0;

  /** Where the next bytes go; there is always room for the rest of a frame once all whole ones were taken. */
  get end(): number {
    if (this.#start > 0 && this.buffer.sizeBytes - this.#end < MAX_NET_FRAME_BYTES) {
      this.buffer.bytes.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.#end;
  }

  commit(sizeBytes: number): void {
    this.#end += sizeBytes;
  }

  /** The next whole frame behind an empty virtio header. @throws FormatError when the stream makes no sense */
  peek(): Uint8Array | undefined {
    if (this.#frameBytes === 0) {
      const length = this.#wholeFrame();
      if (length === 0) return undefined;
      const from = this.#start + LENGTH_BYTES;
      this.#frame.fill(0, 0, NET_HEADER_BYTES);
      this.#frame.set(this.buffer.bytes.subarray(from, from + length), NET_HEADER_BYTES);
      this.#frameBytes = NET_HEADER_BYTES + length;
    }
    return this.#frame.subarray(0, this.#frameBytes);
  }

  drop(): void {
    this.#start += LENGTH_BYTES + this.#frameBytes - NET_HEADER_BYTES;
    this.#frameBytes = 0;
  }

  /** Takes all whole frames out. What is left is the beginning of one. @throws FormatError */
  takeAll(): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (let frame = this.peek(); frame !== undefined; frame = this.peek()) {
      frames.push(frame.slice());
      this.drop();
    }
    return frames;
  }

  /** A copy of everything, as it came. */
  toBytes(): Uint8Array {
    return this.buffer.bytes.slice(this.#start, this.#end);
  }

  /** Everything that is not a whole frame is dropped, or replaced. */
  replace(bytes: Uint8Array): void {
    this.buffer.bytes.set(bytes);
    this.#frameBytes = 0;
    this.#start = 0;
    this.#end = bytes.length;
  }

  /** The length of the frame at the front, 0 while it is not whole. */
  #wholeFrame(): number {
    const there = this.#end - this.#start;
    if (there < LENGTH_BYTES) return 0;
    const length = this.buffer.view.getUint32(this.#start);
    if (length < ETHERNET_HEADER_BYTES || length > MAX_NET_FRAME_BYTES - NET_HEADER_BYTES) {
      throw new FormatError(`a frame of ${length} bytes`, "network stream");
    }
    return there < LENGTH_BYTES + length ? 0 : length;
  }
}
