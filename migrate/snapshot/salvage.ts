/** What of a damaged file can still be believed: every part on its own, by its own checksum. */
import { FormatError } from "../../src/errors.ts";
import { viewOf } from "./bytes.ts";
import type { Extent } from "./extent.ts";
import { FileCipher } from "./file-cipher.ts";
import { FileInput } from "./file-input.ts";
import { type Credentials, unwrapFileKey } from "./file-keys.ts";
import { batchExtents } from "./index-check.ts";
import { decodeIndex, type IndexTable } from "./index-table.ts";
import { livingExtents } from "./living-extents.ts";
import {
  decodeKeys,
  decodeManifest,
  decodeMemoryMap,
  decodeParent,
  headerInManifest,
  type SnapshotHeader,
  type SnapshotManifest,
  type SnapshotParent,
  type SnapshotRegion,
} from "./manifest.ts";
import {
  RECORD_HEAD_BYTES,
  RECORD_OVERHEAD_BYTES,
  type RecordEntry,
  RecordFlag,
  RecordType,
} from "./record.ts";
import { scanRecords } from "./scan-records.ts";
import { openPayload, readHead, readPayload, readTail, sectionOf } from "./structure.ts";
import { attempt, type VerifyProblem } from "./verify.ts";

/** A byte stream of which chunks were found. */
export interface SalvagedStream {
  readonly type: number;
  readonly streamId: number;
  /** Of the chunks that are whole and follow each other from the first one; undefined where there is no key. */
  readonly sizeBytes: number | undefined;
  /** True where a chunk in the middle is missing. The last one may be missing all the same: compare the size. */
  readonly hasGap: boolean;
}

export interface SalvagedSnapshot {
  readonly sizeBytes: number;
  readonly formatVersion: number | undefined;
  /** Its checksum held. The same is true of each of the following. */
  readonly header: SnapshotHeader | undefined;
  readonly parent: SnapshotParent | undefined;
  readonly manifest: SnapshotManifest | undefined;
  readonly memoryMap: readonly SnapshotRegion[] | undefined;
  /** Hexadecimal; undefined where the index or the end is damaged: then records were looked for from the front. */
  readonly root: string | undefined;
  readonly isEncrypted: boolean;
  /** It is encrypted, and there is no key. */
  readonly isLocked: boolean;
  /** The records that are whole. */
  readonly records: readonly RecordEntry[];
  /** Bytes that belong to no whole record, the header among them. */
  readonly lostBytes: number;
  readonly streams: readonly SalvagedStream[];
  /** The living ones of the records that are whole. */
  readonly extents: readonly Extent[];
  readonly problems: readonly VerifyProblem[];
}

/**
 * Looks at a file that does not open. Undefined where nothing says that it is a snapshot.
 *
 * @throws SyscallError, CompatibilityError for a file of a newer version
 */
export async function salvageSnapshot(
  path: string,
  credentials: Credentials = {},
): Promise<SalvagedSnapshot | undefined> {
  using input = FileInput.open(path);
  const salvage = new Salvage(input);
  return (await salvage.run(credentials)) ? salvage.result() : undefined;
}

type Tail = ReturnType<typeof readTail>;

class Salvage {
  readonly #input: FileInput;
  readonly #problems: VerifyProblem[] = [];
  #head: ReturnType<typeof readHead> | undefined;
  #tail: Tail | undefined;
  #index: IndexTable | undefined;
  #records: RecordEntry[] = [];
  #isLocked = false;

  constructor(input: FileInput) {
    this.#input = input;
  }

  /** False where this is no snapshot at all. */
  async run(credentials: Credentials): Promise<boolean> {
    const input = this.#input;
    this.#head = attempt(this.#problems, () => readHead(input));
    this.#tail = attempt(this.#problems, () => readTail(input));
    const start = this.#head?.headerBytes ?? 0;
    if (this.#tail === undefined) this.#records = [...scanRecords(input, start)];
    const hasRecords = this.#tail !== undefined || this.#records.length > 0;
    if (this.#head === undefined && !hasRecords) return false;
    await this.#unlock(credentials, start);
    if (this.#tail !== undefined) this.#checkListed(this.#tail);
    return true;
  }

  result(): SalvagedSnapshot {
    const manifest = this.#json(RecordType.manifest, decodeManifest);
    const memoryMap = this.#json(RecordType.memoryMap, decodeMemoryMap);
    const headBytes = this.#head?.headerBytes ?? 0;
    const recordBytes = this.#records.reduce(
      (sum, entry) => sum + entry.payloadBytes + RECORD_OVERHEAD_BYTES,
      0,
    );
    const extents = this.#extents();
    return {
      sizeBytes: this.#input.sizeBytes,
      formatVersion: this.#head?.formatVersion,
      header: this.#header(manifest),
      parent: this.#json(RecordType.parent, decodeParent),
      manifest,
      memoryMap,
      root: this.#tail?.root.toHex(),
      isEncrypted: this.#isEncrypted,
      isLocked: this.#isLocked,
      records: this.#records,
      lostBytes: this.#input.sizeBytes - headBytes - recordBytes,
      streams: this.#streams(),
      extents,
      problems: this.#problems,
    };
  }

  get #isEncrypted(): boolean {
    const isSealed = (entry: RecordEntry) => (entry.flags & RecordFlag.encrypted) !== 0;
    return this.#records.some(isSealed) || (this.#head !== undefined && "cipher" in this.#head.header);
  }

  #header(manifest: SnapshotManifest | undefined): SnapshotHeader | undefined {
    const header = this.#head?.header;
    if (header !== undefined && !("cipher" in header)) return header;
    if (header === undefined || manifest === undefined) return undefined;
    return attempt(this.#problems, () => headerInManifest(manifest, 0));
  }

  /** The key opens nothing without the file's id, which is in the header. */
  async #unlock(credentials: Credentials, start: number): Promise<void> {
    const header = this.#head?.header;
    this.#isLocked = this.#isEncrypted;
    if (header === undefined || !("cipher" in header)) return;
    const [first] = this.#tail === undefined ? this.#records : scanRecords(this.#input, start);
    if (first?.type !== RecordType.keys) return;
    const keys = attempt(this.#problems, () => decodeKeys(readPayload(this.#input, first), first.offset));
    const count = (credentials.identities ?? []).length + (credentials.passphrases ?? []).length;
    if (keys === undefined || count === 0) return;
    this.#input.cipher = new FileCipher(await unwrapFileKey(keys.keys, credentials), header.id);
    this.#isLocked = false;
  }

  /** With the index: each record that it lists, and what the broken ones held. */
  #checkListed({ trailer, payload, indexOffset }: Tail): void {
    const input = this.#input;
    const [indexEntry] = trailer as [RecordEntry];
    this.#records = [...trailer];
    if (this.#isLocked && (indexEntry.flags & RecordFlag.encrypted) !== 0) {
      this.#records = [...scanRecords(input, this.#head?.headerBytes ?? 0)];
      return;
    }
    this.#index = attempt(this.#problems, () => {
      const plain = openPayload(input, indexEntry, payload);
      return decodeIndex(plain, indexOffset + RECORD_HEAD_BYTES, indexOffset);
    });
    if (this.#index === undefined) {
      this.#records = [...scanRecords(input, this.#head?.headerBytes ?? 0)];
      return;
    }
    const whole = this.#index.records.slice(1).filter((entry) => {
      return attempt(this.#problems, () => readPayload(input, entry)) !== undefined;
    });
    this.#records = [...whole, ...trailer];
  }

  #json<Type>(type: number, decode: (bytes: Uint8Array, offset: number) => Type): Type | undefined {
    const entry = this.#records.find((record) => record.type === type);
    if (entry === undefined || (this.#isLocked && (entry.flags & RecordFlag.encrypted) !== 0))
      return undefined;
    return attempt(this.#problems, () => {
      const plain = openPayload(this.#input, entry, readPayload(this.#input, entry));
      return decode(plain, entry.offset + RECORD_HEAD_BYTES);
    });
  }

  #streams(): SalvagedStream[] {
    const types: readonly number[] = [RecordType.deviceState, RecordType.qemuStream, RecordType.machineState];
    const chunks = new Map<string, RecordEntry[]>();
    for (const entry of this.#records.filter(({ type }) => types.includes(type))) {
      const key = `${entry.type}:${entry.id >> 32n}`;
      const known = chunks.get(key);
      if (known === undefined) chunks.set(key, [entry]);
      else known.push(entry);
    }
    return [...chunks].map(([key, entries]) => this.#stream(key, entries));
  }

  #stream(key: string, entries: readonly RecordEntry[]): SalvagedStream {
    const [type, streamId] = key.split(":").map(Number) as [number, number];
    const sorted = [...entries].sort((a, b) => Number(a.id - b.id));
    const firstGap = sorted.findIndex((entry, index) => Number(entry.id & 0xffff_ffffn) !== index);
    const leading = firstGap < 0 ? sorted : sorted.slice(0, firstGap);
    const sizes = this.#isLocked ? undefined : leading.map((entry) => this.#plainBytes(entry));
    return {
      type,
      streamId,
      sizeBytes: sizes?.reduce((sum, bytes) => sum + bytes, 0),
      hasGap: firstGap >= 0,
    };
  }

  /** What a chunk says that it unpacks to: its checksum held. */
  #plainBytes(entry: RecordEntry): number {
    const size = attempt(this.#problems, () => {
      const plain = openPayload(this.#input, entry, readPayload(this.#input, entry));
      if (plain.length < 4) throw new FormatError("a chunk is too short", sectionOf(entry), entry.offset);
      return viewOf(plain).getUint32(0, true);
    });
    return size ?? 0;
  }

  #extents(): Extent[] {
    if (this.#isLocked) return [];
    const batches = this.#records.filter(({ type }) => type === RecordType.extents);
    const all = batches.flatMap(
      (entry) => attempt(this.#problems, () => batchExtents(this.#input, entry)) ?? [],
    );
    const living = attempt(this.#problems, () => livingExtents(all, overlap)) ?? [];
    // The frame of a duplicate is in an earlier record, which may be gone.
    const starts = batches.map(({ offset }) => offset).sort((one, other) => one - other);
    const ends = new Map(batches.map(({ offset, payloadBytes }) => [offset, offset + payloadBytes]));
    return living.filter(({ frame }) => {
      if (frame === undefined) return true;
      const start = lastBelow(starts, frame.offset);
      return start !== undefined && frame.offset < (ends.get(start) ?? 0);
    });
  }
}

/** The last of sorted numbers that is below `limit`. */
function lastBelow(sorted: readonly number[], limit: number): number | undefined {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sorted[middle] as number) < limit) low = middle + 1;
    else high = middle;
  }
  return sorted[low - 1];
}

function overlap(earlier: Extent): never {
  throw new FormatError("extents overlap within a pass", `extents of memory region ${earlier.regionId}`);
}
