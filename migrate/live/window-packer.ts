import { MEMORY_PAGE_BYTES, zeroRuns } from "../snapshot/mod.ts";
import { type PackPlace, PagePacker } from "./page-packer.ts";

export interface WindowPlace extends PackPlace {
  readonly offset: number;
}

/** Packs stretches of memory, whatever they hold. */
export class WindowPacker {
  readonly #packer: PagePacker;

  /** @param cacheBytes For pages that come again. */
  constructor(cacheBytes: number) {
    this.#packer = new PagePacker(cacheBytes);
  }

  /** Writes the payload of a memory frame to `room` and returns its size. `window`, whole pages, is used up. */
  pack(window: Uint8Array, place: WindowPlace, room: Uint8Array): number {
    const [offsets, zeros]: [number[], number[]] = [[], []];
    let dataBytes = 0;
    for (const { offset, sizeBytes, isZero } of zeroRuns(window)) {
      const list = isZero ? zeros : offsets;
      for (let at = 0; at < sizeBytes; at += MEMORY_PAGE_BYTES) list.push(place.offset + offset + at);
      if (isZero) continue;
      if (dataBytes !== offset) window.copyWithin(dataBytes, offset, offset + sizeBytes);
      dataBytes += sizeBytes;
    }
    return this.#packer.pack({ bytes: window.subarray(0, dataBytes), offsets, zeros }, place, room);
  }
}
