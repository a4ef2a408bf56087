/**
 * `bun lossy-link-program.ts TAP TAP LOSS-PERCENT DELAY-MS SEED`: a cable between two taps, which it makes. It really loses frames, in
 * both directions alike, and the others take their time. On SIGTERM it prints what it has passed and lost.
 */
import { EventLoop, IoVector, NativeBuffer, POLL, TAP_WOULD_BLOCK, Tap } from "../../src/sys/mod.ts";
import { randomNumbers } from "../fuzz/mutate.ts";

/** A frame of 1514 bytes, and the virtio-net header that the kernel puts before it. */
const FRAME_BYTES = 2048;
/** What may be on its way in one direction: more than a gigabit of 50 ms. */
const MAX_FRAMES = 8192;
/** Frames taken in one go. */
const BURST = 64;
const PER_MILLION = 1_000_000;

interface Flying {
  readonly dueMs: number;
  readonly slot: number;
  readonly sizeBytes: number;
}

class Direction {
  readonly #memory = new NativeBuffer(MAX_FRAMES * FRAME_BYTES);
  readonly #vector = new IoVector(1);
  readonly #flying: Flying[] = [];
  #next = 0;
  passed = 0;
  lost = 0;

  constructor(
    readonly from: Tap,
    readonly to: Tap,
    readonly loop: EventLoop,
    readonly lossPerMillion: number,
    readonly delayMs: number,
    readonly random: (limit: number) => number,
  ) {
    loop.watch(from.fd, POLL.IN, () => this.#take());
  }

  #take(): void {
    for (let count = 0; count < BURST; count += 1) {
      const slot = this.#next;
      const sizeBytes = this.from.read(this.#at(slot, FRAME_BYTES));
      if (sizeBytes === TAP_WOULD_BLOCK) return;
      if (this.random(PER_MILLION) < this.lossPerMillion || this.#flying.length >= MAX_FRAMES - 1)
        this.lost += 1;
      else if (this.delayMs === 0) this.#give(slot, sizeBytes);
      else {
        this.#next = (slot + 1) % MAX_FRAMES;
        this.#flying.push({ dueMs: performance.now() + this.delayMs, slot, sizeBytes });
        if (this.#flying.length === 1) this.#schedule();
      }
    }
  }

  #schedule(): void {
    const [first] = this.#flying;
    if (first !== undefined)
      this.loop.schedule(Math.max(first.dueMs - performance.now(), 0), () => this.#land());
  }

  #land(): void {
    const nowMs = performance.now();
    let count = 0;
    for (; count < this.#flying.length && (this.#flying[count] as Flying).dueMs <= nowMs; count += 1) {
      const { slot, sizeBytes } = this.#flying[count] as Flying;
      this.#give(slot, sizeBytes);
    }
    this.#flying.splice(0, count);
    this.#schedule();
  }

  /** An end that is down takes nothing, as a cable that was pulled. */
  #give(slot: number, sizeBytes: number): void {
    try {
      const written = this.to.write(this.#at(slot, sizeBytes));
      if (written === TAP_WOULD_BLOCK) this.lost += 1;
      else this.passed += 1;
    } catch {
      this.lost += 1;
    }
  }

  #at(slot: number, sizeBytes: number): IoVector {
    this.#vector.clear();
    this.#vector.push(this.#memory.address + slot * FRAME_BYTES, sizeBytes);
    return this.#vector;
  }
}

const [nameA = "", nameB = "", loss = "0", delay = "0", seed = "1"] = process.argv.slice(2);
using loop = new EventLoop();
const [a, b] = [nameA, nameB].map((name) => Tap.open(name)[0] as Tap) as [Tap, Tap];
const random = randomNumbers(Number(seed));
const rest = [loop, Number(loss) * (PER_MILLION / 100), Number(delay), random] as const;
const directions = [new Direction(a, b, ...rest), new Direction(b, a, ...rest)];
process.on("SIGTERM", () => loop.stop());
await loop.run();
const sum = (what: "passed" | "lost") => directions.reduce((total, each) => total + each[what], 0);
console.log(JSON.stringify({ passed: sum("passed"), lost: sum("lost") }));
process.exit(0);
