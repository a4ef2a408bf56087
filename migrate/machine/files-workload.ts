import { z } from "zod";
import { PeerError } from "../../src/errors.ts";
import { xxh3 } from "../../src/state/mod.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import type { WorkloadConfig } from "../machine-file/mod.ts";
import {
  answerBody,
  FUSE_ANSWER_BYTES,
  FUSE_REQUEST_BYTES,
  initRequest,
  lookedUpNode,
  lookupRequest,
  openedHandle,
  openRequest,
  readRequest,
} from "./fuse-messages.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { parseWorkloadState, type VerifyReport, type Workload, type WorkloadCounters } from "./workload.ts";

/** Queue 0 is for high-priority requests (FORGET, INTERRUPT), 1 for all others (virtio 1.2, 5.11.2). */
const REQUEST_QUEUE = 1;
/** One request at a time: there is one token. */
const TOKEN = 0;

const u64 = z.string().regex(/^\d{1,20}$/);
const file = z.strictObject({ node: u64, handle: u64.optional(), checksum: u64.optional() });
const state = z.strictObject({
  unique: z.number().int().min(0),
  inFlight: z.boolean(),
  initialised: z.boolean(),
  lookedUp: z.number().int().min(0),
  files: z.array(file).max(1000),
  turn: z.number().int().min(0),
  counters: z.strictObject({ reads: z.number(), errors: z.number(), mismatches: z.number() }),
});
type State = z.infer<typeof state>;
type Config = Extract<WorkloadConfig, { kind: "files" }>;

/**
 * A small FUSE client: looks many files up, holds some open, and reads those again and again through the handles it got once.
 * What a file held at the first read it must hold for ever.
 */
export class FilesWorkload implements Workload {
  readonly kind = "files";
  readonly #request: number;
  readonly #answer: number;
  readonly #state: State;
  #isPaused = true;
  #timer: (() => void) | undefined;

  constructor(
    readonly config: Config,
    readonly share: MachineDevice,
    readonly memory: MachineMemory,
    readonly loop: EventLoop,
    restored?: unknown,
  ) {
    this.#request = memory.allocate(FUSE_REQUEST_BYTES);
    this.#answer = memory.allocate(FUSE_ANSWER_BYTES);
    this.#state = restored === undefined ? freshState() : parseWorkloadState(state, restored);
  }

  get devices(): readonly MachineDevice[] {
    return [this.share];
  }

  get isIdle(): boolean {
    return !this.#state.inFlight;
  }

  run(): void {
    this.#isPaused = false;
    this.#next();
  }

  pause(): void {
    this.#isPaused = true;
    this.#timer?.();
    this.#timer = undefined;
  }

  onInterrupt(): void {
    this.share.queues[REQUEST_QUEUE]!.drain((_token, writtenBytes) => this.#complete(writtenBytes));
    if (!this.#isPaused) this.#next();
  }

  counters(): WorkloadCounters {
    const { lookedUp, files, counters } = this.#state;
    return { lookedUp, open: files.filter(({ handle }) => handle !== undefined).length, ...counters };
  }

  exportState(): State {
    return structuredClone(this.#state);
  }

  /** Reads every open file once more through its handle. */
  verify(turn: () => void): VerifyReport {
    const { files, counters } = this.#state;
    const before = counters.mismatches + counters.errors;
    const open = files.filter(({ checksum }) => checksum !== undefined);
    for (const _each of open) {
      this.#next();
      while (this.#state.inFlight) {
        turn();
        this.share.queues[REQUEST_QUEUE]!.drain((_token, writtenBytes) => this.#complete(writtenBytes));
      }
    }
    const torn = counters.mismatches + counters.errors - before;
    const failures = torn === 0 ? [] : [`${torn} of ${open.length} open files do not read as before`];
    return { checked: open.length, lost: 0, torn, repeated: 0, failures };
  }

  [Symbol.dispose](): void {
    this.pause();
  }

  /** INIT, then all look-ups, then the opens, then reads for ever. */
  #next(): void {
    const { config } = this;
    const now = this.#state;
    if (now.inFlight) return;
    now.unique++;
    const opening = now.files.find(({ handle }) => handle === undefined);
    if (!now.initialised) this.#send(initRequest(now.unique));
    else if (now.lookedUp < config.lookups) this.#send(lookupRequest(now.unique, fileName(now.lookedUp)));
    else if (opening !== undefined) this.#send(openRequest(now.unique, opening.node));
    else {
      const { node, handle } = now.files[now.turn % now.files.length]!;
      this.#sendLater(readRequest(now.unique, node, handle!));
    }
  }

  #complete(writtenBytes: number): void {
    const now = this.#state;
    now.inFlight = false;
    try {
      const answer = new Uint8Array(Math.min(writtenBytes, FUSE_ANSWER_BYTES));
      this.memory.guest.read(this.#answer, answer);
      const opening = now.files.find(({ handle }) => handle === undefined);
      const body = answerBody(answer, now.unique, `request ${now.unique}`);
      if (!now.initialised) now.initialised = true;
      else if (now.lookedUp < this.config.lookups) {
        const node = lookedUpNode(body);
        if (now.lookedUp++ < this.config.open) now.files.push({ node });
      } else if (opening !== undefined) opening.handle = openedHandle(body);
      else this.#compare(body);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      now.counters.errors++;
      this.pause();
    }
  }

  #compare(content: Uint8Array): void {
    const now = this.#state;
    const each = now.files[now.turn++ % now.files.length]!;
    const checksum = xxh3(content).toString();
    each.checksum ??= checksum;
    if (each.checksum !== checksum) now.counters.mismatches++;
    now.counters.reads++;
  }

  #sendLater(bytes: Uint8Array): void {
    const pauseMs = this.config["pause-ms"];
    if (pauseMs === 0 || this.#isPaused) {
      this.#send(bytes);
      return;
    }
    this.#state.unique--;
    this.#timer ??= this.loop.schedule(pauseMs, () => {
      this.#timer = undefined;
      this.#state.unique++;
      this.#send(bytes);
    });
  }

  #send(bytes: Uint8Array): void {
    const queue = this.share.queues[REQUEST_QUEUE]!;
    this.memory.guest.write(this.#request, bytes);
    queue.add(
      [
        { guestAddress: this.#request, sizeBytes: bytes.length, writable: false },
        { guestAddress: this.#answer, sizeBytes: FUSE_ANSWER_BYTES, writable: true },
      ],
      TOKEN,
    );
    this.#state.inFlight = true;
    queue.notify();
  }
}

function fileName(index: number): string {
  return `file-${String(index).padStart(4, "0")}`;
}

function freshState(): State {
  const counters = { reads: 0, errors: 0, mismatches: 0 };
  return { unique: 0, inFlight: false, initialised: false, lookedUp: 0, files: [], turn: 0, counters };
}
