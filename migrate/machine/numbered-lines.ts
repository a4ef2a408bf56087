import { z } from "zod";

/** Longer than any line, and what a reader keeps of one that has no end. */
const MAX_LINE_CHARACTERS = 256;
/** Lines differ in length, so that a byte that is lost or repeated anywhere is noticed. */
const LONGEST_TAIL = 61;

/** Line `number` of the stream that one side writes and the other expects: 1 is the first. */
export function numberedLine(number: number): string {
  return `line ${number} ${"=".repeat(number % LONGEST_TAIL)}\n`;
}

export const linesState = z.strictObject({
  expected: z.number().int().min(1),
  rest: z.string().max(MAX_LINE_CHARACTERS),
  lost: z.number().int().min(0),
  repeated: z.number().int().min(0),
  torn: z.number().int().min(0),
});
type LinesState = z.infer<typeof linesState>;

/** Reads a stream of numbered lines, and counts what is not as it should be. */
export class NumberedLines {
  readonly #state: LinesState;

  constructor(state?: LinesState) {
    this.#state = { ...(state ?? { expected: 1, rest: "", lost: 0, repeated: 0, torn: 0 }) };
  }

  /** How far the stream has come, in lines. */
  get received(): number {
    return this.#state.expected - 1;
  }

  get state(): LinesState {
    return { ...this.#state };
  }

  push(bytes: Uint8Array): void {
    const now = this.#state;
    const lines = (now.rest + Buffer.from(bytes).toString("latin1")).split("\n");
    now.rest = lines.pop()!;
    for (const line of lines) this.#judge(`${line}\n`);
    if (now.rest.length <= MAX_LINE_CHARACTERS) return;
    now.rest = "";
    now.torn++;
  }

  #judge(line: string): void {
    const now = this.#state;
    if (line === numberedLine(now.expected)) {
      now.expected++;
      return;
    }
    const number = Number(/^line (\d{1,15}) /.exec(line)?.[1]);
    if (line !== numberedLine(number)) now.torn++;
    else if (number < now.expected) now.repeated++;
    else {
      now.lost += number - now.expected;
      now.expected = number + 1;
    }
  }
}
