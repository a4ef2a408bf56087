import type { ImageFile } from "./image-file.ts";

/**
 * An image of qcow2's version 3 (docs/interop/qcow2.rst of QEMU) that is filled at random and then complete: 64 KiB clusters,
 * 16-bit reference counts, no backing file. Its tables are kept in memory and written at the end; until then it is an empty
 * disk of the right size, which QEMU can open: it looks again when it takes the disk over.
 */
const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 1 << CLUSTER_BITS;
const TABLE_ENTRIES = CLUSTER_BYTES / 8;
const COUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
const MAGIC = 0x514649fb;
const HEADER_BYTES = 104;
/** One cluster of the reference table is enough for 16 TiB of file. */
const MAX_VIRTUAL_BYTES = 8 * 2 ** 40;
/** Bit 63: the cluster is this image's alone. */
const COPIED = 0x8000_0000;

const AT = { header: 0, counts: 1, firstCountBlock: 2, level1: 3 } as const;

export class Qcow2Layout {
  readonly #file: ImageFile;
  readonly #level1Entries: number;
  readonly #level1Clusters: number;
  /** By their index: the cluster in the file of each of the disk's, 0 for none. */
  readonly #tables = new Map<number, Uint32Array>();
  #next: number;

  static readonly maxVirtualBytes = MAX_VIRTUAL_BYTES;

  /** Makes an empty file the empty image. */
  constructor(
    file: ImageFile,
    readonly virtualBytes: number,
  ) {
    this.#file = file;
    this.#level1Entries = Math.max(1, Math.ceil(virtualBytes / (TABLE_ENTRIES * CLUSTER_BYTES)));
    this.#level1Clusters = Math.ceil(this.#level1Entries / TABLE_ENTRIES);
    this.#next = AT.level1 + this.#level1Clusters;
    file.write(0, this.#header());
    this.#writeCounts([AT.firstCountBlock]);
    file.write(AT.level1 * CLUSTER_BYTES, new Uint8Array(this.#level1Clusters * CLUSTER_BYTES));
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const start = this.#place(offset + at);
      let end = at + roomAt(offset + at, bytes.length - at);
      // Clusters that are neighbours in the file, too, go in one piece.
      while (end < bytes.length && this.#place(offset + end) === start + end - at) {
        end += roomAt(offset + end, bytes.length - end);
      }
      this.#file.write(start, bytes.subarray(at, end));
      at = end;
    }
  }

  /** What was never written reads as zeros anyway. */
  zero(offset: number, sizeBytes: number): void {
    for (let at = offset; at < offset + sizeBytes; ) {
      const size = roomAt(at, offset + sizeBytes - at);
      const cluster = this.#tables.get(tableOf(at))?.[entryOf(at)] ?? 0;
      if (cluster !== 0) this.#file.zero(cluster * CLUSTER_BYTES + (at % CLUSTER_BYTES), size);
      at += size;
    }
  }

  /** Writes the tables: from now on it is the disk. Returns the file's size. */
  complete(): number {
    const level1 = new Uint8Array(this.#level1Clusters * CLUSTER_BYTES);
    for (const [index, table] of this.#tables) {
      const bytes = new Uint8Array(CLUSTER_BYTES);
      for (const [entry, cluster] of table.entries()) if (cluster !== 0) setEntry(bytes, entry, cluster);
      setEntry(level1, index, this.#next);
      this.#file.write(this.#next * CLUSTER_BYTES, bytes);
      this.#next += 1;
    }
    const blocks: number[] = [AT.firstCountBlock];
    while (blocks.length * COUNTS_PER_BLOCK < this.#next) blocks.push(this.#next++);
    this.#writeCounts(blocks);
    this.#file.write(AT.level1 * CLUSTER_BYTES, level1);
    return this.#next * CLUSTER_BYTES;
  }

  /** Where a byte of the disk is in the file; a cluster is taken for it where it has none. */
  #place(offset: number): number {
    const index = tableOf(offset);
    let table = this.#tables.get(index);
    if (table === undefined) {
      table = new Uint32Array(TABLE_ENTRIES);
      this.#tables.set(index, table);
    }
    const entry = entryOf(offset);
    if (table[entry] === 0) table[entry] = this.#next++;
    return (table[entry] as number) * CLUSTER_BYTES + (offset % CLUSTER_BYTES);
  }

  /** Every cluster so far is used once. */
  #writeCounts(blocks: readonly number[]): void {
    const table = new Uint8Array(CLUSTER_BYTES);
    for (const [index, cluster] of blocks.entries()) {
      const counts = new Uint8Array(CLUSTER_BYTES);
      const used = Math.min(this.#next - index * COUNTS_PER_BLOCK, COUNTS_PER_BLOCK);
      for (let at = 0; at < used; at++) counts[2 * at + 1] = 1;
      this.#file.write(cluster * CLUSTER_BYTES, counts);
      new DataView(table.buffer).setBigUint64(8 * index, BigInt(cluster * CLUSTER_BYTES));
    }
    this.#file.write(AT.counts * CLUSTER_BYTES, table);
  }

  #header(): Uint8Array {
    const bytes = new Uint8Array(CLUSTER_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, MAGIC);
    view.setUint32(4, 3);
    view.setUint32(20, CLUSTER_BITS);
    view.setBigUint64(24, BigInt(this.virtualBytes));
    view.setUint32(36, this.#level1Entries);
    view.setBigUint64(40, BigInt(AT.level1 * CLUSTER_BYTES));
    view.setBigUint64(48, BigInt(AT.counts * CLUSTER_BYTES));
    view.setUint32(56, 1);
    // Reference counts of 1 << 4 bits.
    view.setUint32(96, 4);
    view.setUint32(100, HEADER_BYTES);
    return bytes;
  }
}

const tableOf = (offset: number) => Math.floor(offset / (TABLE_ENTRIES * CLUSTER_BYTES));
const entryOf = (offset: number) => Math.floor(offset / CLUSTER_BYTES) % TABLE_ENTRIES;
/** Up to the end of the cluster. */
const roomAt = (offset: number, sizeBytes: number) =>
  Math.min(CLUSTER_BYTES - (offset % CLUSTER_BYTES), sizeBytes);

function setEntry(table: Uint8Array, index: number, cluster: number): void {
  const view = new DataView(table.buffer);
  view.setUint32(8 * index, COPIED + Math.floor(cluster / 2 ** (32 - CLUSTER_BITS)));
  view.setUint32(8 * index + 4, (cluster * CLUSTER_BYTES) % 2 ** 32);
}
