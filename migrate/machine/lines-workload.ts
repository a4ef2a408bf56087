import { z } from "zod";
import type { EventLoop } from "../../src/sys/mod.ts";
import type { WorkloadConfig } from "../machine-file/mod.ts";
import { ConsoleControl } from "./console-control.ts";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { linesState, NumberedLines, numberedLine } from "./numbered-lines.ts";
import { Pace } from "./pace.ts";
import { QueueBuffers } from "./queue-buffers.ts";
import { parseWorkloadState, type VerifyReport, type Workload, type WorkloadCounters } from "./workload.ts";

const BUFFERS = 8;
const BUFFER_BYTES = 256;

const state = z.strictObject({
  ports: z.array(z.strictObject({ sent: z.number().int().min(0), received: linesState })).max(31),
  control: z
    .strictObject({ isGreeted: z.boolean(), openPorts: z.array(z.number().int().min(0).max(30)).max(31) })
    .optional(),
});
type State = z.infer<typeof state>;
type Config = Extract<WorkloadConfig, { kind: "lines" }>;

/** One port of the console, in both directions. */
class LinePort {
  readonly #toHost: QueueBuffers;
  readonly #toGuest: QueueBuffers;
  readonly received: NumberedLines;
  sent: number;

  constructor(device: MachineDevice, port: number, memory: MachineMemory, from?: State["ports"][number]) {
    // Queues 2 and 3 are the control queues (virtio 1.2, 5.3.2).
    const first = port === 0 ? 0 : 2 * port + 2;
    const buffers = (index: number) => {
      const queue = device.queues[index]!;
      return new QueueBuffers(queue, memory, Math.min(BUFFERS, queue.size), BUFFER_BYTES);
    };
    this.#toGuest = buffers(first);
    this.#toHost = buffers(first + 1);
    this.sent = from?.sent ?? 0;
    this.received = new NumberedLines(from?.received);
  }

  hear(): void {
    this.#toHost.drain();
    this.#toGuest.drain((bytes) => this.received.push(bytes));
  }

  /** Gives the device what it can take. A host that does not read holds the lines back. */
  talk(): void {
    while (this.#toGuest.offer());
    this.#toGuest.queue.notify();
    if (this.#toHost.send(Buffer.from(numberedLine(this.sent + 1)))) this.sent++;
    this.#toHost.queue.notify();
  }
}

/**
 * Writes numbered lines to every port of a console, and expects the same from whoever is at the other ends. All that it knows
 * is how far each direction has come, so a byte that is lost or repeated by a save and a load is noticed by one of the two.
 */
export class LinesWorkload implements Workload {
  readonly kind = "lines";
  /** Nothing here is waited for: a host may leave its end unread for as long as it likes. */
  readonly isIdle = true;
  readonly #ports: readonly LinePort[];
  readonly #control: ConsoleControl | undefined;
  readonly #pace: Pace;

  constructor(
    readonly config: Config,
    readonly device: MachineDevice,
    readonly memory: MachineMemory,
    loop: EventLoop,
    restored?: unknown,
  ) {
    const from = restored === undefined ? undefined : parseWorkloadState(state, restored);
    const own = device.config.type === "console" ? device.config.port : undefined;
    this.#ports = (own ?? [undefined]).map(
      (_, port) => new LinePort(device, port, memory, from?.ports[port]),
    );
    if (own !== undefined) this.#control = new ConsoleControl(device, memory, own.length, from?.control);
    this.#pace = new Pace(loop, config["pause-ms"], () => this.#turn());
  }

  get devices(): readonly MachineDevice[] {
    return [this.device];
  }

  run(): void {
    this.#pace.run();
  }

  pause(): void {
    this.#pace.pause();
  }

  onInterrupt(): void {
    this.#control?.pump(!this.#pace.isPaused);
    for (const port of this.#ports) port.hear();
    this.#pace.again();
  }

  counters(): WorkloadCounters {
    const { lost, repeated, torn } = this.#sum();
    return {
      sent: this.#ports.reduce((sum, { sent }) => sum + sent, 0),
      received: this.#ports.reduce((sum, { received }) => sum + received.received, 0),
      open: this.#control?.openPorts.size ?? 1,
      ...{ lost, repeated, torn },
    };
  }

  exportState(): State {
    const ports = this.#ports.map(({ sent, received }) => ({ sent, received: received.state }));
    return { ports, ...(this.#control === undefined ? {} : { control: this.#control.exportState() }) };
  }

  verify(): VerifyReport {
    return this.#sum();
  }

  [Symbol.dispose](): void {
    this.pause();
  }

  #turn(): void {
    this.#control?.pump(true);
    for (const [id, port] of this.#ports.entries()) {
      port.hear();
      if (this.#control?.openPorts.has(id) ?? true) port.talk();
    }
  }

  #sum(): VerifyReport {
    const report = { checked: 0, lost: 0, torn: 0, repeated: 0, failures: [] as string[] };
    for (const [id, { received }] of this.#ports.entries()) {
      const { lost, torn, repeated } = received.state;
      report.checked += received.received;
      report.lost += lost;
      report.torn += torn;
      report.repeated += repeated;
      if (lost + torn + repeated === 0) continue;
      report.failures.push(
        `${this.device.config.name} port ${id}: ${lost} lines lost, ${torn} torn, ${repeated} repeated`,
      );
    }
    return report;
  }
}
