import { formatBytes, formatDuration } from "./format.ts";

/** At most so often is the bar drawn, or a JSON status line written. */
const INTERVAL_MS = 100;
const BAR_COLUMNS = 24;

export interface ProgressState {
  readonly doneBytes: number;
  /** Absent where it is not known. */
  readonly totalBytes?: number;
  /** What the bar says instead of its own rate and time. */
  readonly note?: string;
  /** More for the JSON status lines. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** How far something is, drawn on one line that is gone at the end. */
export class Progress implements Disposable {
  readonly #label: string;
  readonly #draw: (text: string, state?: ProgressState) => void;
  readonly #startMs = performance.now();
  #drawnMs = Number.NEGATIVE_INFINITY;

  /** @param draw Takes what replaces the line, and the state behind it; "" takes the line away. */
  constructor(label: string, draw: (text: string, state?: ProgressState) => void) {
    this.#label = label;
    this.#draw = draw;
  }

  update(state: ProgressState): void {
    const nowMs = performance.now();
    if (nowMs - this.#drawnMs < INTERVAL_MS) return;
    this.#drawnMs = nowMs;
    this.#draw(this.#lineOf(state, (nowMs - this.#startMs) / 1000), state);
  }

  [Symbol.dispose](): void {
    if (this.#drawnMs >= this.#startMs) this.#draw("");
  }

  #lineOf({ doneBytes, totalBytes, note }: ProgressState, seconds: number): string {
    const rate =
      note !== undefined ? ` ${note}` : seconds > 0.2 ? ` ${formatBytes(doneBytes / seconds)}/s` : "";
    if (totalBytes === undefined || totalBytes === 0) {
      return `${this.#label} ${formatBytes(doneBytes)}${rate}`;
    }
    const share = Math.min(1, doneBytes / totalBytes);
    const filled = Math.round(share * BAR_COLUMNS);
    const bar = "#".repeat(filled).padEnd(BAR_COLUMNS, ".");
    const leftMs = share > 0.02 ? (seconds * 1000 * (1 - share)) / share : undefined;
    const left = leftMs === undefined || note !== undefined ? "" : `, ${formatDuration(leftMs)} left`;
    return `${this.#label} [${bar}] ${Math.floor(share * 100)}% of ${formatBytes(totalBytes)}${rate}${left}`;
  }
}
