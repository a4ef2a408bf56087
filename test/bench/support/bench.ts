/** One way to do the work that a contest measures. */
export interface Contender {
  readonly name: string;
  /** Does the work once and returns what it took, in the contest's unit. */
  run(): Promise<number>;
}

/** What the contest is to show. `of` and `over` are names of contenders; without `over` the value itself is limited. */
export interface Goal {
  readonly of: string;
  readonly over?: string;
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** The same work done in several ways, in turns. */
export interface Contest {
  readonly title: string;
  readonly unit: string;
  readonly contenders: readonly Contender[];
  readonly goals: readonly Goal[];
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
