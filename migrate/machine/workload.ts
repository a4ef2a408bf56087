import type { z } from "zod";
import { FormatError } from "../../src/errors.ts";
import type { MachineDevice } from "./machine-device.ts";

/** What a verification has found. */
export interface VerifyReport {
  readonly checked: number;
  readonly lost: number;
  readonly torn: number;
  readonly repeated: number;
  readonly failures: readonly string[];
}

export type WorkloadCounters = Readonly<Record<string, number>>;

/**
 * What the machine's "guest" does: drives devices through their rings and checks what comes back. It is event-driven, on
 * the machine's loop, and all that it knows is either in guest memory or in `exportState`.
 */
export interface Workload extends Disposable {
  readonly kind: string;
  readonly devices: readonly MachineDevice[];
  /** Begins or goes on to submit. */
  run(): void;
  /** Submits nothing more; what is in flight comes back by itself. */
  pause(): void;
  /** Takes completions and, while it runs, submits what follows. */
  onInterrupt(): void;
  /** True when nothing is in flight. */
  readonly isIdle: boolean;
  counters(): WorkloadCounters;
  /** Plain data. */
  exportState(): unknown;
  /** Checks everything that was done against what the devices give back; the workload is idle and paused. */
  verify(turn: () => void): VerifyReport;
}

/** @throws FormatError when what was saved is not what this workload saves */
export function parseWorkloadState<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FormatError(
    `the workload's state is invalid: ${issue?.path.join(".")}: ${issue?.message}`,
    "machine state",
  );
}
