import { MAX_LIVE_WINDOW_BYTES } from "../../src/limits.ts";

/** What is always allowed: two windows of memory that do not compress. */
const LEAST_BYTES = 2 << 20;
const START_BYTES = 4 << 20;
/** What may wait beyond what the way takes: the machine stands still while the last of it goes out. */
const SLACK_MS = 40;
/** The time over which a rate is measured. */
const SAMPLE_MS = 50;
/** Samples whose best counts. */
const SAMPLES = 8;

/**
 * How much of a stream may be under way: what the link takes in one round trip, and a little more. More would only wait in
 * buffers, and what is sent next behind it.
 */
export class SendWindow {
  #sizeBytes = START_BYTES;
  readonly #underWay: { readonly sequence: number; readonly atMs: number; readonly bytes: number }[] = [];
  readonly #rates: number[] = [];
  #roundTripMs = Number.POSITIVE_INFINITY;
  #sampleBytes = 0;
  #sampleStartMs: number | undefined;

  constructor(readonly now: () => number = () => performance.now()) {}

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  sent(sequence: number, bytes: number): void {
    this.#sampleStartMs ??= this.now();
    this.#underWay.push({ sequence, atMs: this.now(), bytes });
  }

  acknowledged(sequence: number): void {
    const nowMs = this.now();
    while (this.#underWay.length > 0 && this.#underWay[0]!.sequence <= sequence) {
      const { atMs, bytes } = this.#underWay.shift()!;
      this.#roundTripMs = Math.min(this.#roundTripMs, nowMs - atMs);
      this.#sampleBytes += bytes;
    }
    const elapsedMs = nowMs - (this.#sampleStartMs ?? nowMs);
    if (elapsedMs < SAMPLE_MS) return;
    this.#rates.push(this.#sampleBytes / elapsedMs);
    if (this.#rates.length > SAMPLES) this.#rates.shift();
    this.#sampleBytes = 0;
    this.#sampleStartMs = this.#underWay.length > 0 ? nowMs : undefined;
    const wanted = 1.5 * Math.max(...this.#rates) * (this.#roundTripMs + SLACK_MS);
    this.#sizeBytes = Math.min(Math.max(wanted, LEAST_BYTES), MAX_LIVE_WINDOW_BYTES);
  }
}
