/** The levels of `--compress auto`, the cheapest first. Not to pack at all costs more in TLS and TCP than it spares (measured). */
const LADDER: readonly number[] = [-5, -1, 1, 3, 5];
const FIRST = 1;
/** Windows between two looks. */
const LOOK_AT = 32;

export type CompressSetting = "auto" | "none" | number;

/**
 * Which level the next window is packed at. Where the link was waited for, there is time to pack harder; where the packing
 * was, there is not.
 */
export class CompressionLevel {
  #step = FIRST;
  #link = 0;
  #windows = 0;

  constructor(readonly setting: CompressSetting) {}

  get level(): number | undefined {
    if (this.setting === "auto") return LADDER[this.#step];
    return this.setting === "none" ? undefined : this.setting;
  }

  /** @param waitedFor What the window had to wait for, if it had to. */
  note(waitedFor: "link" | "packing" | undefined): void {
    this.#windows += 1;
    if (waitedFor === "link") this.#link += 1;
    if (waitedFor === "packing") this.#link -= 1;
    if (this.#windows < LOOK_AT) return;
    if (this.#link > LOOK_AT / 2) this.#step = Math.min(this.#step + 1, LADDER.length - 1);
    else if (this.#link < -LOOK_AT / 2) this.#step = Math.max(this.#step - 1, 0);
    this.#windows = 0;
    this.#link = 0;
  }
}
