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
): Promise<ContestResult[]> {
  const measures = [contest, ...(contest.also ?? [])];
  const values = measures.map(
    () => new Map<string, number[]>(contest.contenders.map(({ name }) => [name, []])),
  );
  for (let round = 0; round <= rounds; round++) {
    onRound(round);
    for (const contender of inTurn(contest.contenders, round)) {
      const figures = [await contender.run()].flat();
      if (round > 0)
        for (const [i, figure] of figures.entries()) values[i]!.get(contender.name)!.push(figure);
    }
  }
  return measures.map(({ unit, goals }, i) => ({
    title: contest.title,
    unit,
    rounds,
    figures: [...values[i]!].map(([name, list]) => ({ name, ...spreadOf(list) })),
    goals: goals.flatMap((goal) => judge(goal, values[i]!)),
  }));
}

function inTurn(contenders: readonly Contender[], round: number): readonly Contender[] {
  return round % 2 === 0 ? contenders : contenders.toReversed();
}

/** Nothing where a contender is missing (no C compiler): there is nothing to compare with. */
function judge(goal: Goal, values: ReadonlyMap<string, readonly number[]>): GoalResult[] {
  const own = values.get(goal.of);
  const others = [goal.over ?? []]
    .flat()
    .flatMap((name) => [values.get(name) ?? []].filter(({ length }) => length));
  if (own === undefined || (goal.over !== undefined && others.length === 0)) return [];
  const { atMost = Infinity, atLeast = 0 } = goal;
  const best = atMost === Infinity ? Math.max : Math.min;
  const measured = spreadOf(
    own.map((value, round) =>
      others.length === 0 ? value : value / best(...others.map((list) => list[round]!)),
    ),
  );
  const holds = (value: number) => value <= atMost && value >= atLeast;
  const unanimous = holds(measured.min) === holds(measured.max);
  const verdict = !unanimous ? "no verdict" : holds(measured.median) ? "met" : "missed";
  return [{ text: textOf(goal), measured, verdict }];
}

function textOf({ of, over, atMost, atLeast }: Goal): string {
  const limit = atMost === undefined ? `at least ${atLeast}` : `at most ${atMost}`;
  return over === undefined ? `${of}: ${limit}` : `${of} / ${[over].flat().join(" or ")}: ${limit}`;
}

function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}
