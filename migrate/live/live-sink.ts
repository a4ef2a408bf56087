import assert from "node:assert/strict";
import { availableParallelism } from "node:os";
import { UsageError } from "../../src/errors.ts";
import {
  MAX_LIVE_DELTA_BYTES,
  MAX_SNAPSHOT_FRAME_BYTES,
  MAX_SNAPSHOT_WORKERS,
  STATE_CHUNK_BYTES,
} from "../../src/limits.ts";
import type { VmSink } from "../driver.ts";
import type { PageChannels } from "../multifd/mod.ts";
import type { SnapshotManifest, SnapshotRegion } from "../snapshot/mod.ts";
import { ChannelPool } from "./channel-pool.ts";
import { CompressionLevel, type CompressSetting } from "./compression-level.ts";
import { FrameType } from "./frame.ts";
import { PackPool } from "./pack-pool.ts";
import type { RateLimit } from "./rate-limit.ts";
import { RegionTable, streamOf } from "./region-table.ts";
import type { Session } from "./session.ts";
import { encodeStatePiece, type StateKind } from "./state-frame.ts";

export interface LiveSinkOptions {
  /** Called once the memory's layout is known; memory goes out when its promise is over. */
  readonly prepare: (regions: readonly SnapshotRegion[]) => Promise<void>;
  readonly compress: CompressSetting;
  readonly rate: RateLimit;
}

const ZEROS = new Uint8Array(MAX_SNAPSHOT_FRAME_BYTES);
/** More windows than this on their way make `writeMemory` wait; each stream has its own order. */
const LOW_FILL = 0.1;
const HIGH_FILL = 0.5;

/** Where a driver puts a machine that moves: over the network, into another vhu. */
export class LiveSink implements VmSink, Disposable {
  readonly #session: Session;
  readonly #options: LiveSinkOptions;
  #pool: PackPool | undefined;
  #channels: ChannelPool | undefined;
  readonly #level: CompressionLevel;
  readonly #rate: RateLimit;
  #regions = new RegionTable([]);
  #prepared: Promise<void> | undefined;
  /** Over when all windows so far were given to the Workers. */
  #turn: Promise<void> = Promise.resolve();
  /** What was given by calls that do not wait. */
  readonly #pending: Promise<unknown>[] = [];
  #passNumber = 0;
  #givenBytes = 0;
  /** Of memory, as it went out. */
  packedBytes = 0;
  manifest: SnapshotManifest | undefined;

  constructor(session: Session, options: LiveSinkOptions) {
    this.#session = session;
    this.#options = options;
    this.#level = new CompressionLevel(options.compress);
    this.#rate = options.rate;
  }

  /** QEMU's multifd: what comes so is not given to `writeMemory`. */
  get channels(): PageChannels {
    const session = this.#session;
    this.#channels ??= new ChannelPool({
      count: session.identity.streams,
      cacheBytes: this.#cacheBytes,
      send: async (stream, payload, plainBytes, waiting) => {
        const fill = session.fillOf(stream);
        this.#level.note(
          fill > HIGH_FILL ? "link" : fill < LOW_FILL && waiting === 0 ? "packing" : undefined,
        );
        await this.#prepared;
        await this.#send(stream, payload, plainBytes);
      },
      endPass: (stream) => session.send(stream, FrameType.pass, new Uint8Array(0)),
      level: () => this.#level.level,
    });
    return this.#channels;
  }

  /** Of memory, as it was given. */
  get memoryBytes(): number {
    return this.#givenBytes + (this.#channels?.doneBytes ?? 0);
  }

  get #cacheBytes(): number {
    return Math.floor(MAX_LIVE_DELTA_BYTES / this.#session.identity.streams);
  }

  get level(): number | undefined {
    return this.#level.level;
  }

  writeMemoryMap(regions: readonly SnapshotRegion[]): void {
    assert(this.#prepared === undefined, "a machine has one memory map");
    this.#regions = new RegionTable(regions);
    if (this.#channels !== undefined) this.#channels.regions = regions;
    this.#prepared = this.#options.prepare(regions);
    this.#prepared.catch(() => {});
  }

  /** Equal pages are looked for anyway. */
  lookUpPages(): Disposable {
    return { [Symbol.dispose]: () => {} };
  }

  /** Over when all of `bytes` is on its way; the windows are packed side by side, in the order of the calls. */
  async writeMemory(regionId: number, offset: number, bytes: Uint8Array): Promise<void> {
    this.#regions.require(regionId, offset, bytes.length);
    await this.#write(regionId, offset, bytes.length, (at, sizeBytes) => bytes.subarray(at, at + sizeBytes));
    this.#givenBytes += bytes.length;
  }

  /** In the first pass the receiver's memory is zero already. */
  writeHole(regionId: number, offset: number, sizeBytes: number): void {
    this.#regions.require(regionId, offset, sizeBytes);
    this.#givenBytes += sizeBytes;
    if (this.#passNumber === 0) return;
    this.#later(this.#write(regionId, offset, sizeBytes, (_, windowBytes) => ZEROS.subarray(0, windowBytes)));
  }

  /** The receiver has nothing of an earlier time. */
  readonly baseRoot = undefined;

  /** @throws UsageError always: there is no base */
  writeUnchanged(): never {
    throw new UsageError("only a snapshot with a base can leave memory to it");
  }

  nextMemoryPass(): number {
    this.#passNumber += 1;
    return this.#passNumber;
  }

  writeDeviceState(deviceId: number): StateWriter {
    return this.#state("device", deviceId);
  }

  writeQemuStream(): StateWriter {
    return this.#state("qemu", 0);
  }

  writeMachineState(bytes: Uint8Array): void {
    const state = this.#state("machine", 0);
    state.write(bytes);
    state.finish();
  }

  writeManifest(manifest: SnapshotManifest): void {
    assert(this.manifest === undefined, "the manifest was given twice");
    this.manifest = manifest;
    this.#later(
      this.#prepared?.then(() => this.#session.say({ kind: "manifest", manifest: { ...manifest } })),
    );
  }

  /**
   * Says that all was given, and what it comes to. The receiver compares.
   * @param diskChunks Of each disk that was copied, its parts.
   */
  async finish(diskChunks?: readonly number[]): Promise<void> {
    await this.#prepared;
    await Promise.all(this.#pending);
    if (this.manifest === undefined) throw new UsageError("the manifest was never given");
    const streams = this.#session.streams.slice(1);
    const lastSequences = streams.map(({ lastSent }) => lastSent);
    const roots = streams.map(({ sentRoot }) => sentRoot).join("");
    const root = Bun.CryptoHasher.hash("sha256", roots, "hex");
    const copied = diskChunks === undefined ? {} : { diskChunks: [...diskChunks] };
    await this.#session.say({ kind: "end", lastSequences, root, ...copied });
  }

  [Symbol.dispose](): void {
    this.#pool?.[Symbol.dispose]();
    this.#channels?.[Symbol.dispose]();
  }

  /**
   * Gives windows to the Workers when those of all earlier calls have been given: what a later pass brings must never be
   * overtaken by what an earlier one does.
   */
  async #write(
    regionId: number,
    offset: number,
    sizeBytes: number,
    windowOf: (at: number, windowBytes: number) => Uint8Array,
  ): Promise<void> {
    const passNumber = this.#passNumber;
    const under: Promise<void>[] = [];
    const turn = this.#turn.then(async () => {
      await this.#prepared;
      for (let at = 0; at < sizeBytes; ) {
        const windowBytes = Math.min(windowBytesAt(offset + at), sizeBytes - at);
        const place = { regionId, offset: offset + at, passNumber };
        const { done } = await this.#window(place, windowOf(at, windowBytes));
        // Its fault is met below.
        done.catch(() => {});
        under.push(done);
        at += windowBytes;
      }
    });
    this.#turn = turn.catch(() => {});
    await turn.finally(() => Promise.allSettled(under));
    await Promise.all(under);
  }

  async #window(
    at: { readonly regionId: number; readonly offset: number; readonly passNumber: number },
    bytes: Uint8Array,
  ): Promise<{ readonly done: Promise<void> }> {
    const stream = streamOf(at.regionId, at.offset, this.#session.identity.streams);
    const fill = this.#session.fillOf(stream);
    this.#pool ??= this.#newPool();
    const isPacking = fill < LOW_FILL && this.#pool.isBusy(stream);
    this.#level.note(fill > HIGH_FILL ? "link" : isPacking ? "packing" : undefined);
    return this.#pool.pack(stream, bytes, { ...at, level: this.#level.level }, (payload) =>
      this.#send(stream, payload, bytes.length),
    );
  }

  #newPool(): PackPool {
    const { streams } = this.#session.identity;
    return new PackPool(Math.min(streams, availableParallelism(), MAX_SNAPSHOT_WORKERS), this.#cacheBytes);
  }

  async #send(stream: number, payload: Uint8Array, plainBytes: number): Promise<void> {
    const waitMs = this.#rate.takeMs(payload.length);
    if (waitMs > 0) await Bun.sleep(waitMs);
    await this.#session.send(stream, FrameType.memory, payload, plainBytes);
    this.packedBytes += payload.length;
  }

  #state(kind: StateKind, deviceId: number): StateWriter {
    return new StateWriter((piece) => {
      const payload = encodeStatePiece({ kind, deviceId, ...piece });
      // A machine whose memory is all zeros has its state before the receiver has room for it.
      this.#later(this.#prepared?.then(() => this.#session.send(0, FrameType.state, payload)));
    });
  }

  #later(promise: Promise<unknown> | undefined): void {
    assert(promise !== undefined, "the memory map comes first");
    promise.catch(() => {});
    this.#pending.push(promise);
  }
}

/** Takes a state as it comes. */
class StateWriter {
  readonly #give: (piece: { bytes: Uint8Array } | { sizeBytes: number; sha256: string }) => void;
  readonly #hash = new Bun.CryptoHasher("sha256");
  #sizeBytes = 0;

  constructor(give: (piece: { bytes: Uint8Array } | { sizeBytes: number; sha256: string }) => void) {
    this.#give = give;
  }

  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += STATE_CHUNK_BYTES) {
      this.#give({ bytes: bytes.subarray(at, at + STATE_CHUNK_BYTES) });
    }
    this.#hash.update(bytes);
    this.#sizeBytes += bytes.length;
  }

  finish(): { sizeBytes: number; sha256: string } {
    const end = { sizeBytes: this.#sizeBytes, sha256: this.#hash.digest("hex") };
    this.#give(end);
    return end;
  }
}

/** Windows end at multiples of 1 MiB of their region, so that a page is always in the same stream. */
function windowBytesAt(offset: number): number {
  return MAX_SNAPSHOT_FRAME_BYTES - (offset % MAX_SNAPSHOT_FRAME_BYTES);
}
