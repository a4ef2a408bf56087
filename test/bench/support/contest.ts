import type { Contender, Contest, Goal } from "./bench.ts";

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface GoalResult {
  readonly text: string;
  readonly measured: Spread;
  /** "no verdict": the rounds disagree, the goal lies within their spread. */
  readonly verdict: "met" | "missed" | "no verdict";
}

export interface ContestResult {
  readonly title: string;
  readonly unit: string;
  readonly rounds: number;
  readonly figures: readonly (Spread & { readonly name: string })[];
  readonly goals: readonly GoalResult[];
}

/**
 * Lets the contenders take turns, so that what disturbs the machine for a while disturbs all of them; every other round
 * goes backwards. The first round warms up and is dropped. Ratios are those of the rounds.
 */
export async function hold(
  contest: Contest,
  rounds: number,
  onRound: (round: number) => void,
): Promise<ContestResult> {
  const values = new Map<string, number[]>(contest.contenders.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    onRound(round);
    for (const contender of inTurn(contest.contenders, round)) {
      const value = await contender.run();
      if (round > 0) values.get(contender.name)!.push(value);
    }
  }
  return {
    title: contest.title,
    unit: contest.unit,
    rounds,
    figures: [...values].map(([name, list]) => ({ name, ...spreadOf(list) })),
    goals: contest.goals.flatMap((goal) => judge(goal, values)),
  };
}

function inTurn(contenders: readonly Contender[], round: number): readonly Contender[] {
  return round % 2 === 0 ? contenders : contenders.toReversed();
}

/** Nothing where a contender is missing (no C compiler): there is nothing to compare with. */
function judge(goal: Goal, values: ReadonlyMap<string, readonly number[]>): GoalResult[] {
  const own = values.get(goal.of);
  const other = goal.over === undefined ? undefined : values.get(goal.over);
  if (own === undefined || (goal.over !== undefined && other === undefined)) return [];
  const measured = spreadOf(own.map((value, round) => value / (other?.[round] ?? 1)));
  const { atMost = Infinity, atLeast = 0 } = goal;
  const holds = (value: number) => value <= atMost && value >= atLeast;
  const unanimous = holds(measured.min) === holds(measured.max);
  const verdict = !unanimous ? "no verdict" : holds(measured.median) ? "met" : "missed";
  return [{ text: textOf(goal), measured, verdict }];
}

function textOf({ of, over, atMost, atLeast }: Goal): string {
  const limit = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`;
  return over === undefined ? `${of}: ${limit}` : `${of} / ${over}: ${limit}`;
}

function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}
