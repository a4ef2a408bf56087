import { z } from "zod";
import type { MachineDevice } from "./machine-device.ts";
import type { MachineMemory } from "./machine-memory.ts";

const LINE_BYTES = 32;
const LINES = 32;
const TRANSMIT_QUEUE = 1;

export const logState = z.strictObject({
  pending: z.array(z.number().int().min(1)).max(100_000),
  busy: z
    .array(
      z
        .number()
        .int()
        .min(0)
        .max(LINES - 1),
    )
    .max(LINES),
});

/** Writes a line for each number to a console, in order, through the guest's transmit queue. */
export class LogWriter {
  readonly #address: number;
  readonly #free: number[] = [];
  readonly #pending: number[];

  constructor(
    readonly device: MachineDevice,
    readonly memory: MachineMemory,
    state?: z.infer<typeof logState>,
  ) {
    this.#address = memory.allocate(LINE_BYTES * LINES);
    this.#pending = [...(state?.pending ?? [])];
    const busy = new Set(state?.busy);
    for (let line = LINES - 1; line >= 0; line--) if (!busy.has(line)) this.#free.push(line);
  }

  /** Lines that the device has not taken yet. */
  get backlog(): number {
    return this.#pending.length;
  }

  get isIdle(): boolean {
    return this.#pending.length === 0 && this.#free.length === LINES;
  }

  push(sequence: number): void {
    this.#pending.push(sequence);
  }

  /** Takes back buffers and offers what waits. */
  pump(): void {
    const queue = this.device.queues[TRANSMIT_QUEUE]!;
    queue.drain((line) => void this.#free.push(line));
    let added = false;
    while (this.#pending.length > 0 && this.#free.length > 0) {
      const line = this.#free.pop()!;
      const text = new TextEncoder().encode(`ack ${this.#pending[0]}\n`);
      const guestAddress = this.#address + line * LINE_BYTES;
      this.memory.guest.write(guestAddress, text);
      if (!queue.add([{ guestAddress, sizeBytes: text.length, writable: false }], line)) {
        this.#free.push(line);
        break;
      }
      this.#pending.shift();
      added = true;
    }
    if (added) queue.notify();
  }

  exportState(): z.infer<typeof logState> {
    const free = new Set(this.#free);
    return {
      pending: [...this.#pending],
      busy: Array.from({ length: LINES }, (_, i) => i).filter((i) => !free.has(i)),
    };
  }
}
