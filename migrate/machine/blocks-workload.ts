import { z } from "zod";
import { FormatError } from "../../src/errors.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import type { WorkloadConfig } from "../machine-file/mod.ts";
import { BLOCK_BYTES, fillBlock, readBlock } from "./block-content.ts";
import { LogWriter, logState } from "./log-writer.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { parseWorkloadState, type VerifyReport, type Workload, type WorkloadCounters } from "./workload.ts";

const SECTORS_PER_BLOCK = BLOCK_BYTES / 512;
const REQUEST = { read: 0, write: 1 } as const;
const HEADER_BYTES = 16;
/** Header, status byte, padding. */
const CONTROL_BYTES = 32;
const STATUS_OFFSET = HEADER_BYTES;
/** A log that falls behind holds the writes back, as a full disk buffer would. */
const MAX_LOG_BACKLOG = 256;
/** Every so many requests is a read that checks an earlier write. */
const READ_EVERY = 4;

const lane = z.strictObject({
  kind: z.enum(["idle", "read", "write"]),
  slot: z.number().int().min(0),
  sequence: z.number().int().min(0),
});
const state = z.strictObject({
  nextSequence: z.number().int().min(1),
  requests: z.number().int().min(0),
  lanes: z.array(lane).max(64),
  counters: z.strictObject({
    writes: z.number(),
    reads: z.number(),
    errors: z.number(),
    mismatches: z.number(),
  }),
  log: logState.optional(),
});
type Lane = z.infer<typeof lane>;
type Config = Extract<WorkloadConfig, { kind: "blocks" }>;

/**
 * Writes numbered, checksummed blocks to a disk, several at a time, reads earlier ones back, and keeps a ledger of what was
 * acknowledged in guest memory. Nothing may be lost, torn or repeated, whatever happens to the processes.
 */
export class BlocksWorkload implements Workload {
  readonly kind = "blocks";
  readonly #control: number;
  readonly #data: number;
  readonly #ledger: number;
  readonly #log: LogWriter | undefined;
  readonly #lanes: Lane[];
  readonly #block = new Uint8Array(new ArrayBuffer(BLOCK_BYTES));
  readonly #counters = { writes: 0, reads: 0, errors: 0, mismatches: 0 };
  #nextSequence = 1;
  #requests = 0;
  #isPaused = true;
  #timer: (() => void) | undefined;

  constructor(
    readonly config: Config,
    readonly disk: MachineDevice,
    readonly console: MachineDevice | undefined,
    readonly memory: MachineMemory,
    readonly loop: EventLoop,
    restored?: unknown,
  ) {
    const lanes = config["in-flight"];
    this.#control = memory.allocate(lanes * CONTROL_BYTES);
    this.#data = memory.allocate(lanes * BLOCK_BYTES);
    this.#ledger = memory.allocate(config.blocks * 8);
    const from = restored === undefined ? undefined : parseWorkloadState(state, restored);
    this.#log = console === undefined ? undefined : new LogWriter(console, memory, from?.log);
    this.#lanes =
      from?.lanes ?? Array.from({ length: lanes }, () => ({ kind: "idle", slot: 0, sequence: 0 }));
    if (from === undefined) return;
    if (from.lanes.length !== lanes)
      throw new FormatError(`${from.lanes.length} lanes instead of ${lanes}`, "machine state");
    this.#nextSequence = from.nextSequence;
    this.#requests = from.requests;
    Object.assign(this.#counters, from.counters);
  }

  get devices(): readonly MachineDevice[] {
    return this.console === undefined ? [this.disk] : [this.disk, this.console];
  }

  get isIdle(): boolean {
    return this.#lanes.every(({ kind }) => kind === "idle") && (this.#log?.isIdle ?? true);
  }

  run(): void {
    this.#isPaused = false;
    this.#submit();
  }

  pause(): void {
    this.#isPaused = true;
    this.#timer?.();
    this.#timer = undefined;
  }

  onInterrupt(): void {
    this.disk.queues[0]!.drain((token) => this.#complete(this.#lanes[token]!, token));
    this.#log?.pump();
    if (!this.#isPaused) this.#schedule();
  }

  counters(): WorkloadCounters {
    return { ...this.#counters, sequence: this.#nextSequence - 1, logBacklog: this.#log?.backlog ?? 0 };
  }

  exportState(): z.infer<typeof state> {
    return {
      nextSequence: this.#nextSequence,
      requests: this.#requests,
      lanes: this.#lanes.map((each) => ({ ...each })),
      counters: { ...this.#counters },
      ...(this.#log === undefined ? {} : { log: this.#log.exportState() }),
    };
  }

  /** Reads every block through the device and compares it with the ledger. */
  verify(turn: () => void): VerifyReport {
    const report = { checked: 0, lost: 0, torn: 0, repeated: 0, failures: [] as string[] };
    for (let slot = 0; slot < this.config.blocks; slot++) {
      const expected = this.#acknowledged(slot);
      this.#offer(0, "read", slot, expected, false);
      while (this.#lanes[0]!.kind !== "idle") {
        turn();
        this.disk.queues[0]!.drain((token) => {
          if (this.#statusOf(token) !== 0)
            report.failures.push(`slot ${slot}: the device answered with an error`);
          this.#lanes[token]!.kind = "idle";
        });
      }
      this.#judge(slot, expected, report);
    }
    return report;
  }

  [Symbol.dispose](): void {
    this.pause();
  }

  #judge(
    slot: number,
    expected: number,
    report: { checked: number; lost: number; torn: number; repeated: number; failures: string[] },
  ): void {
    this.memory.guest.read(this.#data, this.#block);
    const found = readBlock(this.#block);
    if (found === "untouched" && expected === 0) return;
    report.checked++;
    if (found === "torn") report.torn++;
    else if (found === "untouched" || Number(found.sequence) < expected) report.lost++;
    else if (found.slot !== slot || Number(found.sequence) > expected) report.repeated++;
    else return;
    report.failures.push(
      `slot ${slot}: expected ${expected}, found ${found === "torn" || found === "untouched" ? found : found.sequence}`,
    );
  }

  #schedule(): void {
    const pauseMs = this.config["pause-ms"];
    if (pauseMs === 0) this.#submit();
    else
      this.#timer ??= this.loop.schedule(pauseMs, () => {
        this.#timer = undefined;
        this.#submit();
      });
  }

  #submit(): void {
    let offered = false;
    for (let token = 0; token < this.#lanes.length; token++) {
      if (this.#lanes[token]!.kind === "idle") offered = this.#next(token) || offered;
    }
    if (offered) this.disk.queues[0]!.notify();
    this.#log?.pump();
    // Without pauses the next completion brings it on.
    if (!offered && this.config["pause-ms"] > 0) this.#schedule();
  }

  #next(token: number): boolean {
    if (this.#requests % READ_EVERY === READ_EVERY - 1 && this.#nextSequence > 1) {
      const slot = (this.#requests * 7919) % Math.min(this.#nextSequence - 1, this.config.blocks);
      this.#requests++;
      if (!this.#isBusy(slot)) return this.#offer(token, "read", slot, this.#acknowledged(slot), true);
    }
    if ((this.#log?.backlog ?? 0) >= MAX_LOG_BACKLOG) return false;
    const slot = (this.#nextSequence - 1) % this.config.blocks;
    if (this.#isBusy(slot)) return false;
    this.#requests++;
    return this.#offer(token, "write", slot, this.#nextSequence++, true);
  }

  #isBusy(slot: number): boolean {
    return this.#lanes.some((each) => each.kind !== "idle" && each.slot === slot);
  }

  #offer(token: number, kind: "read" | "write", slot: number, sequence: number, batched: boolean): boolean {
    const control = this.#control + token * CONTROL_BYTES;
    const data = this.#data + token * BLOCK_BYTES;
    if (kind === "write") {
      fillBlock(this.#block, BigInt(sequence), slot);
      this.memory.guest.write(data, this.#block);
    }
    const header = new Uint8Array(CONTROL_BYTES);
    const view = new DataView(header.buffer);
    view.setUint32(0, REQUEST[kind], true);
    view.setBigUint64(8, BigInt(slot * SECTORS_PER_BLOCK), true);
    header[STATUS_OFFSET] = 0xff;
    this.memory.guest.write(control, header);
    const queue = this.disk.queues[0]!;
    const added = queue.add(
      [
        { guestAddress: control, sizeBytes: HEADER_BYTES, writable: false },
        { guestAddress: data, sizeBytes: BLOCK_BYTES, writable: kind === "read" },
        { guestAddress: control + STATUS_OFFSET, sizeBytes: 1, writable: true },
      ],
      token,
    );
    if (added) this.#lanes[token] = { kind, slot, sequence };
    if (added && !batched) queue.notify();
    return added;
  }

  #complete(done: Lane, token: number): void {
    const failed = this.#statusOf(token) !== 0;
    if (failed) this.#counters.errors++;
    else if (done.kind === "write") {
      this.#acknowledge(done.slot, done.sequence);
      this.#counters.writes++;
      this.#log?.push(done.sequence);
    } else if (done.kind === "read") {
      this.#counters.reads++;
      this.memory.guest.read(this.#data + token * BLOCK_BYTES, this.#block);
      const found = readBlock(this.#block);
      const right =
        found !== "torn" &&
        found !== "untouched" &&
        Number(found.sequence) === done.sequence &&
        found.slot === done.slot;
      if (!right && !(found === "untouched" && done.sequence === 0)) this.#counters.mismatches++;
    }
    done.kind = "idle";
  }

  #statusOf(token: number): number {
    const status = new Uint8Array(1);
    this.memory.guest.read(this.#control + token * CONTROL_BYTES + STATUS_OFFSET, status);
    return status[0]!;
  }

  /** The ledger: the last acknowledged sequence of each slot, in guest memory. */
  #acknowledged(slot: number): number {
    const entry = new Uint8Array(8);
    this.memory.guest.read(this.#ledger + slot * 8, entry);
    return Number(new DataView(entry.buffer).getBigUint64(0, true));
  }

  #acknowledge(slot: number, sequence: number): void {
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setBigUint64(0, BigInt(sequence), true);
    this.memory.guest.write(this.#ledger + slot * 8, entry);
  }
}
