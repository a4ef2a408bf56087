import { MAX_NET_QUEUE_BYTES } from "../../src/limits.ts";

/** Frames in the order in which they came, each in one piece of one block of memory. */
export class FrameQueue {
  readonly #bytes = new Uint8Array(MAX_NET_QUEUE_BYTES);
  readonly #places: { offset: number; sizeBytes: number }[] = [];
  #end = 0;

  get length(): number {
    return this.#places.length;
  }

  /** Room for a frame, which is part of the queue at once; undefined when there is none. */
  push(sizeBytes: number): Uint8Array | undefined {
    const offset = this.#placeFor(sizeBytes);
    if (offset === undefined) return undefined;
    this.#end = offset + sizeBytes;
    this.#places.push({ offset, sizeBytes });
    return this.#bytes.subarray(offset, this.#end);
  }

  front(): Uint8Array | undefined {
    const first = this.#places[0];
    return first === undefined
      ? undefined
      : this.#bytes.subarray(first.offset, first.offset + first.sizeBytes);
  }

  shift(): void {
    this.#places.shift();
  }

  /** Takes back what was pushed last. */
  pop(): void {
    const last = this.#places.pop();
    if (last === undefined) return;
    const before = this.#places.at(-1);
    this.#end = before === undefined ? 0 : before.offset + before.sizeBytes;
  }

  /** Is there room for a frame of this size? */
  hasRoom(sizeBytes: number): boolean {
    return this.#placeFor(sizeBytes) !== undefined;
  }

  clear(): void {
    this.#places.length = 0;
  }

  /** Copies of all frames. */
  toArray(): Uint8Array[] {
    return this.#places.map(({ offset, sizeBytes }) => this.#bytes.slice(offset, offset + sizeBytes));
  }

  #placeFor(sizeBytes: number): number | undefined {
    const first = this.#places[0];
    if (first === undefined) return sizeBytes <= this.#bytes.length ? 0 : undefined;
    const start = first.offset;
    if (this.#end <= start) return this.#end + sizeBytes <= start ? this.#end : undefined;
    if (this.#end + sizeBytes <= this.#bytes.length) return this.#end;
    return sizeBytes <= start ? 0 : undefined;
  }
}
