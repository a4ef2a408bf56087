import type { PassReport } from "../driver.ts";
import { expectedMove } from "./expected-move.ts";

/** What a sender tells while it works. */
export interface SendProgress {
  readonly phase: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Of memory as it went out, and of all on the wire. */
  readonly packedBytes: number;
  readonly wireBytes: number;
  readonly reconnections: number;
  /** Passes over the memory that are done. */
  readonly passes: number;
  /** What is still to be brought, as far as it is known. */
  readonly remainingBytes: number;
  /** How fast the machine changes its memory; how fast memory is taken, and what that is on the wire. */
  readonly dirtyBytesPerSecond: number | undefined;
  readonly memoryBytesPerSecond: number | undefined;
  readonly wireBytesPerSecond: number | undefined;
  /** Bytes of memory for each that went out for them. */
  readonly ratio: number | undefined;
  /** Until it can be stopped; undefined while that is not known, or if it never comes. */
  readonly remainingMs: number | undefined;
  readonly expectedDowntimeMs: number | undefined;
}

/** What was sent by now. */
export interface SendCounts {
  readonly phase: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Of memory, as the driver gave it. */
  readonly givenBytes: number;
  readonly packedBytes: number;
  readonly wireBytes: number;
  readonly reconnections: number;
}

/** Rates are those of the last two seconds. */
const WINDOW_MS = 2_000;
/** Less time than this makes no rate. */
const LEAST_MS = 100;

interface Sample {
  readonly atMs: number;
  readonly givenBytes: number;
  readonly wireBytes: number;
}

/** Makes of counts and passes what can be said about a move that is under way. */
export class SendMeter {
  readonly #samples: Sample[] = [];
  #passes = 0;
  #last: PassReport | undefined;
  #givenAtPass = 0;
  #dirtyBytesPerSecond: number | undefined;

  constructor(
    readonly options: {
      readonly downtimeMaxMs?: number | undefined;
      readonly roundTripMs: number;
      readonly dirtyBytesPerSecond?: number | undefined;
    },
    readonly now: () => number = () => performance.now(),
  ) {
    this.#dirtyBytesPerSecond = options.dirtyBytesPerSecond;
  }

  pass(report: PassReport, givenBytes: number): void {
    this.#last = report;
    this.#passes = report.passNumber + 1;
    this.#givenAtPass = givenBytes;
    this.#dirtyBytesPerSecond = report.dirtyBytesPerSecond ?? this.#dirtyBytesPerSecond;
  }

  progress(counts: SendCounts): SendProgress {
    const { givenBytes, packedBytes, wireBytes, doneBytes, totalBytes } = counts;
    this.#note({ atMs: this.now(), givenBytes, wireBytes });
    const [given, wire] = [this.#rate("givenBytes"), this.#rate("wireBytes")];
    const sinceBytes = givenBytes - this.#givenAtPass;
    const remainingBytes =
      this.#last === undefined ? totalBytes - doneBytes : Math.max(this.#last.dirtyBytes - sinceBytes, 0);
    const expected = given === undefined ? undefined : this.#expected(remainingBytes, given);
    const { givenBytes: _, ...shown } = counts;
    return {
      ...shown,
      passes: this.#passes,
      remainingBytes,
      dirtyBytesPerSecond: this.#dirtyBytesPerSecond,
      memoryBytesPerSecond: given,
      wireBytesPerSecond: wire,
      ratio: packedBytes === 0 ? undefined : givenBytes / packedBytes,
      remainingMs: expected?.expectedMs,
      expectedDowntimeMs: expected?.expectedDowntimeMs,
    };
  }

  #expected(inUseBytes: number, bytesPerSecond: number) {
    const dirtyBytesPerSecond = this.#dirtyBytesPerSecond;
    return expectedMove({ ...this.options, inUseBytes, bytesPerSecond, dirtyBytesPerSecond });
  }

  #note(sample: Sample): void {
    this.#samples.push(sample);
    while (this.#samples.length > 2 && (this.#samples[1] as Sample).atMs <= sample.atMs - WINDOW_MS)
      this.#samples.shift();
  }

  #rate(what: "givenBytes" | "wireBytes"): number | undefined {
    const [first, last] = [this.#samples[0] as Sample, this.#samples.at(-1) as Sample];
    const elapsedMs = last.atMs - first.atMs;
    const bytes = last[what] - first[what];
    return elapsedMs < LEAST_MS || bytes <= 0 ? undefined : (bytes / elapsedMs) * 1000;
  }
}
