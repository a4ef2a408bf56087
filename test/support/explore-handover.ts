import {
  type DestinationSide,
  type Machines,
  machines,
  type SourceSide,
  stepsOf,
  type World,
  type WorldStep,
  worldStart,
} from "./handover-world.ts";

export interface Exploration {
  readonly states: number;
  readonly steps: number;
  /** States from which nobody runs the machine until an operator does what the lines say. */
  readonly needOperator: number;
  /** States in which the machine was lost with its only whole process. */
  readonly lost: number;
}

/**
 * Every state that the two machines can come to: breadth first, with any message late, lost, twice or out of order, and any vhu,
 * machine or host dying between any two effects, as often as one likes. Throws with the way to the first state that is wrong.
 */
export function exploreHandover(under: Machines = machines): Exploration {
  const known = new Map<string, { readonly from: string | undefined; readonly name: string }>();
  const queue: World[] = [worldStart];
  known.set(keyOf(worldStart), { from: undefined, name: "begin" });
  const sum = { states: 0, steps: 0, needOperator: 0, lost: 0 };
  for (let index = 0; index < queue.length; index += 1) {
    const world = queue[index]!;
    const key = keyOf(world);
    try {
      sum.states += 1;
      requireNeverTwo(world);
      const way = wayToOne(world, under);
      if (way === "operator") sum.needOperator += 1;
      if (way === "lost") sum.lost += 1;
      for (const { name, next } of stepsOf(world, under)) {
        sum.steps += 1;
        const nextKey = keyOf(next);
        if (known.has(nextKey)) continue;
        known.set(nextKey, { from: key, name });
        queue.push(next);
      }
    } catch (cause) {
      throw new Error(`${(cause as Error).message}\n${wayTo(known, key).join("\n")}\n${key}`, { cause });
    }
  }
  return sum;
}

function requireNeverTwo({ source, destination }: World): void {
  if (source.machine === "running" && destination.machine === "running") throw new Error("two run it");
}

/** What somebody does who reads the lines on both hosts, with the network down and with it up; each must lead to one runner. */
function wayToOne(world: World, under: Machines): "by itself" | "operator" | "lost" {
  if (isLost(world)) return "lost";
  const results = [false, true].map((hasNetwork) => {
    let now = rest(world, hasNetwork, under);
    if (isOne(now)) return "by itself" as const;
    now = exit(now, hasNetwork, under);
    for (let round = 0; round < 4 && !isOne(now); round += 1) now = recoverBoth(now, hasNetwork, under);
    if (isOne(now)) return "operator" as const;
    requireNeverTwo(now);
    throw new Error(
      `nobody runs it (${hasNetwork ? "with" : "without"} a network), and no line leads on: ${keyOf(now)}`,
    );
  });
  return results.includes("operator") ? "operator" : "by itself";
}

function isOne({ source, destination }: World): boolean {
  return (source.machine === "running") !== (destination.machine === "running");
}

/**
 * No process holds all of it any more, or its owner's has ended, as any machine's can: the source kept it, or it ran at the
 * destination.
 */
function isLost({ source, destination }: World): boolean {
  const hasRun =
    destination.record === "running" || destination.vhu?.came.some(({ type }) => type === "resumed");
  const isRunning = destination.vhu?.state.name === "running";
  if (destination.machine === "gone" && (hasRun || isRunning)) return true;
  if (source.machine !== "gone") return false;
  const isThere = destination.machine === "paused" || destination.machine === "running";
  const isWhole = ["loaded", "owner", "running"].includes(destination.record);
  const isDropped = ["abandoned", "lost"].includes(destination.vhu?.state.name ?? "");
  // A release that failed is as good as kept: the machine may have gone on.
  const mayHaveGoneOn = source.vhu?.came.some(({ type }) => type === "release-failed");
  const isKept = source.record === "kept" || source.vhu?.state.name === "kept" || mayHaveGoneOn;
  return isKept || !isThere || !isWhole || isDropped;
}

/** Until nothing happens by itself any more; the first possibility of several. */
function rest(world: World, hasNetwork: boolean, under: Machines): World {
  let now = world;
  const seen = new Set<string>();
  for (;;) {
    const next: WorldStep | undefined = stepsOf(now, under).find(
      (step) =>
        (step.kind === "work" || (step.kind === "message" && hasNetwork)) &&
        !seen.has(keyOf(step.next)) &&
        step.next !== now,
    );
    if (next === undefined) return now;
    now = next.next;
    seen.add(keyOf(now));
  }
}

/** Both give up and end, as vhu does without a connection. */
function exit(world: World, hasNetwork: boolean, under: Machines): World {
  let now = world;
  for (const side of ["source", "destination"] as const) {
    const step = stepsOf(now, under).find(({ name }) => name === `the ${side} gives up`);
    if (step !== undefined) now = rest(step.next, hasNetwork, under);
  }
  return rest(withoutVhus(now), hasNetwork, under);
}

function withoutVhus({ source, destination, ...messages }: World): World {
  const [ended, endedThere]: [SourceSide, DestinationSide] = [
    { ...source, vhu: undefined },
    { ...destination, vhu: undefined },
  ];
  return { ...messages, source: ended, destination: endedThere };
}

/** On each host: recover with the other's word, as `status` says. */
function recoverBoth(world: World, hasNetwork: boolean, under: Machines): World {
  let now = world;
  for (const side of ["destination", "source"] as const) {
    const step = stepsOf(now, under).findLast(({ name }) => name.startsWith(`recover the ${side} --other`));
    if (step !== undefined) now = withoutVhus(rest(step.next, hasNetwork, under));
  }
  return rest(now, hasNetwork, under);
}

function keyOf(world: World): string {
  return JSON.stringify(world);
}

function wayTo(
  known: ReadonlyMap<string, { readonly from: string | undefined; readonly name: string }>,
  key: string,
): string[] {
  const names: string[] = [];
  for (
    let at = known.get(key);
    at !== undefined;
    at = at.from === undefined ? undefined : known.get(at.from)
  ) {
    names.unshift(`  ${at.name}`);
  }
  return names;
}
