import { MAX_NET_QUEUE_BYTES } from "../../src/limits.ts";

/** Places that were left are kept up to here: moving the others down each time costs more than all else. */
const MAX_LEFT_PLACES = 1024;

/** Frames in the order in which they came, each in one piece of one block of memory. */
export class FrameQueue {
  readonly #bytes = new Uint8Array(MAX_NET_QUEUE_BYTES);
  readonly #places: Uint8Array[] = [];
  /** Index of the front. */
  #first = 0;
  /** Where the last frame ends. */
  #end = 0;

  get length(): number {
    return this.#places.length - this.#first;
  }

  /** Room for a frame, which is part of the queue at once; undefined when there is none. */
  push(sizeBytes: number): Uint8Array | undefined {
    const offset = this.#placeFor(sizeBytes);
    if (offset === undefined) return undefined;
    this.#end = offset + sizeBytes;
    const place = this.#bytes.subarray(offset, this.#end);
    this.#places.push(place);
    return place;
  }

  front(): Uint8Array | undefined {
    return this.#places[this.#first];
  }

  shift(): void {
    this.#first++;
    if (this.length === 0) this.clear();
    else if (this.#first === MAX_LEFT_PLACES) {
      this.#places.splice(0, this.#first);
      this.#first = 0;
    }
  }

  /** Takes back what was pushed last. */
  pop(): void {
    this.#places.pop();
    const last = this.#places.at(-1);
    if (this.length === 0 || last === undefined) this.clear();
    else this.#end = last.byteOffset + last.length;
  }

  /** Is there room for a frame of this size? */
  hasRoom(sizeBytes: number): boolean {
    return this.#placeFor(sizeBytes) !== undefined;
  }

  clear(): void {
    this.#places.length = 0;
    this.#first = 0;
    this.#end = 0;
  }

  /** Copies of all frames. */
  toArray(): Uint8Array[] {
    return this.#places.slice(this.#first).map((place) => place.slice());
  }

  #placeFor(sizeBytes: number): number | undefined {
    const front = this.front();
    if (front === undefined) return sizeBytes <= this.#bytes.length ? 0 : undefined;
    const start = front.byteOffset;
    if (this.#end <= start) return this.#end + sizeBytes <= start ? this.#end : undefined;
    if (this.#end + sizeBytes <= this.#bytes.length) return this.#end;
    return sizeBytes <= start ? 0 : undefined;
  }
}
