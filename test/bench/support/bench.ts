/** One way to do the work that a contest measures. */
export interface Contender {
  readonly name: string;
  /** Does the work once and returns what it took, in the contest's unit; then a figure for each of its `also`. */
  run(): Promise<number | readonly number[]>;
}

/**
 * What the contest is to show. `of` and `over` are names of contenders: with several in `over`, the best of them in each
 * round; without, the value itself is limited.
 */
export interface Goal {
  readonly of: string;
  readonly over?: string | readonly string[];
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** Something that one run tells. */
export interface Measure {
  readonly unit: string;
  readonly goals: readonly Goal[];
}

/** The same work done in several ways, in turns. */
export interface Contest extends Measure {
  readonly title: string;
  readonly contenders: readonly Contender[];
  /** What each run tells besides. */
  readonly also?: readonly Measure[];
}

export interface BenchContext {
  /** A folder for sockets and files, removed at the end. */
  readonly folder: string;
  /** Compiles test/bench/c/NAME.c; the path of the program, undefined where there is no C compiler. */
  compile(name: string): string | undefined;
  /** A line about what is done or left out. */
  say(line: string): void;
}

export interface Bench {
  readonly name: string;
  readonly meaning: string;
  /** How much memory the processes of the largest case have together. */
  readonly memoryBytes: number;
  prepare(context: BenchContext): Promise<readonly Contest[]>;
}
