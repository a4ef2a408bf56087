import { MAX_LIVE_WINDOW_BYTES } from "../../src/limits.ts";

/** What is always allowed: two windows of memory that do not compress. */
const LEAST_BYTES = 2 << 20;
const START_BYTES = 4 << 20;
/** Of memory that may be under way packed: it takes the receiver as long as if it were not. */
const LEAST_PLAIN_BYTES = 4 << 20;
const START_PLAIN_BYTES = 16 << 20;
/** What may wait beyond what the way takes: the machine stands still while the last of it goes out. */
const SLACK_MS = 8;
/** The time over which a rate is measured. */
const SAMPLE_MS = 50;
/** Samples whose best counts. */
const SAMPLES = 8;

interface UnderWay {
  readonly sequence: number;
  readonly atMs: number;
  readonly bytes: number;
  readonly plainBytes: number;
}

/**
 * How much of a stream may be under way: what the link and the receiver take in one round trip, and a little more. More would
 * only wait in buffers, and what is sent next behind it.
 */
export class SendWindow {
  readonly #underWay: UnderWay[] = [];
  readonly #wire = new Amount(START_BYTES, LEAST_BYTES, MAX_LIVE_WINDOW_BYTES);
  readonly #plain = new Amount(START_PLAIN_BYTES, LEAST_PLAIN_BYTES, Number.POSITIVE_INFINITY);
  #roundTripMs = Number.POSITIVE_INFINITY;
  #sampleStartMs: number | undefined;

  constructor(readonly now: () => number = () => performance.now()) {}

  /** From 0 to 1, and a little more. */
  get fill(): number {
    return Math.max(this.#wire.fill, this.#plain.fill);
  }

  /** @param plainBytes What the receiver makes of it. */
  sent(sequence: number, bytes: number, plainBytes = bytes): void {
    this.#sampleStartMs ??= this.now();
    this.#underWay.push({ sequence, atMs: this.now(), bytes, plainBytes });
    this.#wire.add(bytes);
    this.#plain.add(plainBytes);
  }

  acknowledged(sequence: number): void {
    const nowMs = this.now();
    while (this.#underWay.length > 0 && this.#underWay[0]!.sequence <= sequence) {
      const { atMs, bytes, plainBytes } = this.#underWay.shift()!;
      this.#roundTripMs = Math.min(this.#roundTripMs, nowMs - atMs);
      this.#wire.take(bytes);
      this.#plain.take(plainBytes);
    }
    const elapsedMs = nowMs - (this.#sampleStartMs ?? nowMs);
    if (elapsedMs < SAMPLE_MS) return;
    const waitMs = this.#roundTripMs + SLACK_MS;
    this.#wire.sample(elapsedMs, waitMs);
    this.#plain.sample(elapsedMs, waitMs);
    this.#sampleStartMs = this.#underWay.length > 0 ? nowMs : undefined;
  }
}

/** Bytes of one kind that are under way, and how many may be. */
class Amount {
  readonly #rates: number[] = [];
  #underWayBytes = 0;
  #takenBytes = 0;

  constructor(
    public sizeBytes: number,
    readonly leastBytes: number,
    readonly mostBytes: number,
  ) {}

  get fill(): number {
    return this.#underWayBytes / this.sizeBytes;
  }

  add(bytes: number): void {
    this.#underWayBytes += bytes;
  }

  take(bytes: number): void {
    this.#underWayBytes -= bytes;
    this.#takenBytes += bytes;
  }

  sample(elapsedMs: number, waitMs: number): void {
    this.#rates.push(this.#takenBytes / elapsedMs);
    if (this.#rates.length > SAMPLES) this.#rates.shift();
    this.#takenBytes = 0;
    const wanted = 1.5 * Math.max(...this.#rates) * waitMs;
    this.sizeBytes = Math.min(Math.max(wanted, this.leastBytes), this.mostBytes);
  }
}
