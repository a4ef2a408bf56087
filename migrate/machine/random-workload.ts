import { z } from "zod";
import { xxh3 } from "../../src/state/mod.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import type { WorkloadConfig } from "../machine-file/mod.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { Pace } from "./pace.ts";
import { QueueBuffers } from "./queue-buffers.ts";
import { parseWorkloadState, type VerifyReport, type Workload, type WorkloadCounters } from "./workload.ts";

/** Answers that are remembered, by a hash, to notice one that comes again. */
const REMEMBERED = 1024;
/** An answer of so many bytes is not all zeros, and is not an earlier one, by chance. */
const TELLING_BYTES = 8;

const count = z.number().int().min(0);
const state = z.strictObject({
  recent: z.array(z.string().max(20)).max(REMEMBERED),
  counters: z.strictObject({ answers: count, bytes: count, empty: count, zero: count, repeated: count }),
});
type State = z.infer<typeof state>;
type Config = Extract<WorkloadConfig, { kind: "random" }>;

/** Draws random bytes, several requests at a time, and looks whether each answer has some and is a new one. */
export class RandomWorkload implements Workload {
  readonly kind = "random";
  /** A rate limit may hold requests back for long: nothing here is waited for. */
  readonly isIdle = true;
  readonly #buffers: QueueBuffers;
  readonly #recent: Set<string>;
  readonly #counters: State["counters"];
  readonly #pace: Pace;

  constructor(
    readonly config: Config,
    readonly source: MachineDevice,
    readonly memory: MachineMemory,
    loop: EventLoop,
    restored?: unknown,
  ) {
    const { bytes, "in-flight": inFlight } = config;
    this.#buffers = new QueueBuffers(source.queues[0]!, memory, inFlight, bytes);
    const from = restored === undefined ? undefined : parseWorkloadState(state, restored);
    this.#recent = new Set(from?.recent);
    this.#counters = { ...(from?.counters ?? { answers: 0, bytes: 0, empty: 0, zero: 0, repeated: 0 }) };
    this.#pace = new Pace(loop, config["pause-ms"], () => this.#turn());
  }

  get devices(): readonly MachineDevice[] {
    return [this.source];
  }

  run(): void {
    this.#pace.run();
  }

  pause(): void {
    this.#pace.pause();
  }

  onInterrupt(): void {
    this.#buffers.drain((answer) => this.#judge(answer));
    this.#pace.again();
  }

  counters(): WorkloadCounters {
    return { ...this.#counters, inFlight: this.config["in-flight"] - this.#buffers.freeCount };
  }

  exportState(): State {
    return { recent: [...this.#recent], counters: { ...this.#counters } };
  }

  verify(): VerifyReport {
    const { answers, empty, zero, repeated } = this.#counters;
    const failures =
      empty + zero + repeated === 0
        ? []
        : [`${this.source.config.name}: ${empty} empty answers, ${zero} of zeros only, ${repeated} repeated`];
    return { checked: answers, lost: empty, torn: zero, repeated, failures };
  }

  [Symbol.dispose](): void {
    this.pause();
  }

  #turn(): void {
    while (this.#buffers.offer());
    this.#buffers.queue.notify();
  }

  #judge(answer: Uint8Array): void {
    const counters = this.#counters;
    counters.answers++;
    counters.bytes += answer.length;
    if (answer.length === 0) counters.empty++;
    if (answer.length < TELLING_BYTES) return;
    if (answer.every((byte) => byte === 0)) counters.zero++;
    const hash = xxh3(answer).toString();
    if (this.#recent.has(hash)) counters.repeated++;
    this.#recent.add(hash);
    if (this.#recent.size > REMEMBERED) this.#recent.delete(this.#recent.values().next().value!);
  }
}
