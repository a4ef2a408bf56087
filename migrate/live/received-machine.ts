import { StateSpool } from "../../src/backend/mod.ts";
import { FormatError, UsageError } from "../../src/errors.ts";
import {
  MAX_LIVE_STATES,
  MAX_LIVE_STATES_IN_MEMORY_BYTES,
  MAX_QEMU_STREAM_BYTES,
  MAX_STATE_SECTION_BYTES,
} from "../../src/limits.ts";
import { disposeAll, type Fd } from "../../src/sys/mod.ts";
import type { VmSource } from "../driver.ts";
import { memoryPieces } from "../ram/mod.ts";
import type { SnapshotManifest, SnapshotRegion } from "../snapshot/mod.ts";
import { type Frame, FrameType } from "./frame.ts";
import { PassBarrier } from "./pass-barrier.ts";
import { ReceivedMemory } from "./received-memory.ts";
import type { Session } from "./session.ts";
import { decodeStatePiece, type StateKind } from "./state-frame.ts";

/** What arrives of a machine: its memory goes where it will be, its states wait until all of it is here. */
export class ReceivedMachine implements Disposable {
  readonly #session: Session;
  readonly #regions: readonly SnapshotRegion[];
  readonly #fdOf: (regionId: number) => Fd;
  readonly #memory: ReceivedMemory;
  readonly #passes: PassBarrier;
  readonly #takeRoom: (sizeBytes: number) => void;
  #stateBytes = 0;
  readonly #states = new Map<
    string,
    { readonly spool: StateSpool; readonly hash: Bun.CryptoHasher; isWhole: boolean }
  >();

  /**
   * @param fdOf The memfd of each region; it stays the caller's.
   * @param takeRoom Called before that many bytes of states are kept; it throws where that is too much.
   */
  constructor(
    session: Session,
    regions: readonly SnapshotRegion[],
    fdOf: (regionId: number) => Fd,
    takeRoom: (sizeBytes: number) => void = () => {},
  ) {
    this.#takeRoom = takeRoom;
    this.#session = session;
    this.#regions = regions;
    this.#fdOf = fdOf;
    this.#memory = new ReceivedMemory(regions, fdOf);
    this.#passes = new PassBarrier(session.identity.streams);
  }

  get memoryBytes(): number {
    return this.#memory.memoryBytes;
  }

  /** A frame of memory, of a state, or between passes. @throws FormatError, SyscallError */
  take({ type, stream, payload }: Frame): Promise<void> | undefined {
    if (type === FrameType.pass) return this.#passes.next(stream);
    if (type === FrameType.state) this.#takeState(payload);
    else this.#memory.apply(payload);
    return undefined;
  }

  /**
   * After the end: all of it, checked. The memory is given away by `takeMemory`, as duplicates of its memfds.
   * @throws FormatError when something is missing, or not what the sender has sent
   */
  source(manifest: SnapshotManifest, root: string): VmSource {
    const roots = this.#session.streams.slice(1).map(({ receivedRoot }) => receivedRoot);
    if (Bun.CryptoHasher.hash("sha256", roots.join(""), "hex") !== root) {
      throw new FormatError("what arrived is not what was sent: the roots differ", "end");
    }
    for (const [key, { isWhole }] of this.#states) {
      if (!isWhole) throw new FormatError(`the state "${key}" has no end`, "end");
    }
    const region = (id: number) => {
      const found = this.#regions.find((each) => each.id === id);
      if (found === undefined) throw new FormatError(`there is no memory region ${id}`, "memory map");
      return found;
    };
    return {
      manifest,
      memoryMap: this.#regions,
      memory: (id) => memoryPieces(this.#fdOf(id), region(id).sizeBytes),
      extents: () => {
        throw new UsageError("what has arrived has no extents");
      },
      loadRegion: () => {
        throw new FormatError("the memory has come already", "memory");
      },
      deviceState: (id) => this.#chunks("device", id) ?? missing(`the state of device ${id}`),
      qemuStream: () => this.#chunks("qemu", 0),
      machineState: () => {
        const chunks = this.#chunks("machine", 0);
        return chunks === undefined ? undefined : Buffer.concat([...chunks]);
      },
      takeMemory: (id) => this.#fdOf(region(id).id).duplicate(),
    };
  }

  [Symbol.dispose](): void {
    disposeAll([...this.#states.values()].map(({ spool }) => spool));
  }

  #takeState(payload: Uint8Array): void {
    const piece = decodeStatePiece(payload);
    const key = `${piece.kind} ${piece.deviceId}`;
    let state = this.#states.get(key);
    if (state === undefined) {
      if (this.#states.size >= MAX_LIVE_STATES) throw new FormatError("too many states came", "state");
      // Many states that are small alone must not be much in memory together.
      const isMuch = this.#stateBytes > MAX_LIVE_STATES_IN_MEMORY_BYTES;
      const spool = new StateSpool({
        maxBytes: LIMITS[piece.kind],
        ...(isMuch ? { inMemoryBytes: 0 } : {}),
      });
      state = { spool, hash: new Bun.CryptoHasher("sha256"), isWhole: false };
      this.#states.set(key, state);
    }
    if (state.isWhole) throw new FormatError(`the state "${key}" goes on after its end`, "state");
    if ("bytes" in piece) {
      this.#takeRoom(piece.bytes.length);
      this.#stateBytes += piece.bytes.length;
      state.spool.append(piece.bytes);
      state.hash.update(piece.bytes);
    } else if (state.spool.sizeBytes !== piece.sizeBytes || state.hash.digest("hex") !== piece.sha256) {
      throw new FormatError(`the state "${key}" is not what was sent`, "state");
    } else state.isWhole = true;
  }

  #chunks(kind: StateKind, deviceId: number): Generator<Uint8Array, void> | undefined {
    return this.#states.get(`${kind} ${deviceId}`)?.spool.chunks();
  }
}

const LIMITS: Readonly<Record<StateKind, number | undefined>> = {
  device: undefined,
  qemu: MAX_QEMU_STREAM_BYTES,
  machine: MAX_STATE_SECTION_BYTES,
};

function missing(what: string): never {
  throw new FormatError(`${what} is missing`, "state");
}
