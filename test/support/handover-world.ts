import {
  abandon,
  type DestinationEvent,
  type DestinationState,
  destinationStart,
  onDestinationEvent,
} from "../../migrate/live/handover/destination-handover.ts";
import type {
  DestinationEffect,
  DestinationMessage,
  DestinationStateName,
  SourceEffect,
  SourceMessage,
  SourceStateName,
} from "../../migrate/live/handover/handover-messages.ts";
import {
  onSourceEvent,
  type SourceEvent,
  type SourceState,
  sourceStart,
} from "../../migrate/live/handover/source-handover.ts";
import { type MachineHere, takeUpDestination, takeUpSource } from "../../migrate/live/handover/take-up.ts";
import { StateError } from "../../src/errors.ts";

/** One side: its vhu (undefined when it is dead), what its log says, and the machine's process. */
export interface Side<Name, State, Effect, Event, Machine> {
  readonly vhu:
    | { readonly state: State; readonly effects: readonly Effect[]; readonly came: readonly Event[] }
    | undefined;
  readonly record: Name;
  readonly hasEnded: boolean;
  readonly machine: Machine;
  /** The whole host is gone, for good. */
  readonly isDead: boolean;
}
export type SourceSide = Side<
  SourceStateName,
  SourceState,
  SourceEffect,
  SourceEvent,
  "running" | "suspended" | "released" | "gone"
>;
export type DestinationSide = Side<
  DestinationStateName,
  DestinationState,
  DestinationEffect,
  DestinationEvent,
  "loading" | "paused" | "running" | "gone"
>;

/**
 * Two hosts and a network that keeps every message that was ever sent: each may arrive late, never, again, and in any order. So
 * a lost connection needs nothing of its own.
 */
export interface World {
  readonly source: SourceSide;
  readonly destination: DestinationSide;
  /** All of it is on its way. */
  readonly isSent: boolean;
  readonly toSource: readonly DestinationMessage["type"][];
  readonly toDestination: readonly SourceMessage["type"][];
}

export const worldStart: World = {
  source: {
    vhu: { state: sourceStart, effects: [], came: [] },
    record: "sending",
    hasEnded: false,
    machine: "running",
    isDead: false,
  },
  destination: {
    vhu: { state: destinationStart, effects: [], came: [] },
    ...{ record: "receiving", hasEnded: false, machine: "loading", isDead: false },
  },
  isSent: false,
  toSource: [],
  toDestination: [],
};

/** "fault" and "operator" steps happen only if somebody wants them; the others happen by themselves. */
export interface WorldStep {
  readonly name: string;
  readonly kind: "work" | "message" | "fault" | "operator";
  readonly next: World;
}

/** The machines under test; a test of the exploration breaks them. */
export const machines = { onSourceEvent, onDestinationEvent, takeUpSource, takeUpDestination };
export type Machines = typeof machines;

export function stepsOf(world: World, under: Machines): WorldStep[] {
  return [...sourceSteps(world, under), ...destinationSteps(world, under)];
}

const REASON = "a reason";

function sourceSteps(world: World, under: Machines): WorldStep[] {
  const { source } = world;
  const { vhu, machine } = source;
  if (source.isDead) return [];
  const set = (change: Partial<SourceSide>): World => ({ ...world, source: { ...source, ...change } });
  const steps: WorldStep[] = [
    {
      name: "the source's host dies",
      kind: "fault",
      next: set({ vhu: undefined, machine: "gone", isDead: true }),
    },
  ];
  if (machine !== "gone") {
    const came: SourceEvent[] = vhu === undefined ? [] : [...vhu.came, { type: "vm-died" }];
    steps.push({
      ...{ name: "the source's machine dies", kind: "fault" },
      next: set({ machine: "gone", ...(vhu === undefined ? {} : { vhu: { ...vhu, came } }) }),
    });
  }
  if (vhu === undefined) {
    // It is held by a connection: without it, it goes on by itself.
    if (machine === "suspended") {
      steps.push({
        name: "the source's machine goes on by itself",
        kind: "work",
        next: set({ machine: "running" }),
      });
    }
    if (!source.hasEnded) steps.push(...recoverSource(world, under));
    return steps;
  }
  steps.push({ name: "the source's vhu dies", kind: "fault", next: set({ vhu: undefined }) });
  const [effect, ...rest] = vhu.effects;
  if (effect !== undefined) {
    const done = set({ vhu: { ...vhu, effects: rest } });
    return [
      ...steps,
      ...performSource(done, effect).map((next) => ({
        name: `source: ${label(effect)}`,
        kind: "work" as const,
        next,
      })),
    ];
  }
  const on = (event: SourceEvent, changed: Partial<SourceSide> = {}, came = vhu.came): World => {
    const { state, effects } = under.onSourceEvent(vhu.state, event);
    return set({ ...changed, vhu: { state, effects, came } });
  };
  const [first, ...later] = vhu.came;
  if (first !== undefined)
    steps.push({ name: `source: ${first.type}`, kind: "work", next: on(first, {}, later) });
  if (vhu.state.name === "sending" && !vhu.state.isSent && machine === "running") {
    steps.push({
      name: "everything has gone out",
      kind: "work",
      next: { ...on({ type: "sent" }, { machine: "suspended" }), isSent: true },
    });
  }
  for (const type of world.toSource) {
    const message = type === "loaded" || type === "running" ? { type } : { type, reason: REASON };
    steps.push({
      name: `the source gets "${type}"`,
      kind: "message",
      next: on({ type: "message", message }),
    });
  }
  steps.push({ name: "the source gives up", kind: "fault", next: on({ type: "give-up", reason: REASON }) });
  steps.push({ name: "the source is connected again", kind: "message", next: on({ type: "connected" }) });
  return steps;
}

function performSource(world: World, effect: SourceEffect): World[] {
  const { source } = world;
  const set = (change: Partial<SourceSide>): World => ({ ...world, source: { ...source, ...change } });
  const vhu = source.vhu!;
  const then = (event: SourceEvent) => ({ vhu: { ...vhu, came: [...vhu.came, event] } });
  switch (effect.do) {
    case "record":
      return [set({ record: effect.state })];
    case "send":
      return [{ ...world, toDestination: withMessage(world.toDestination, effect.message.type) }];
    case "release":
      if (source.machine === "gone") return [world];
      return [
        set({ machine: "released", ...then({ type: "released" }) }),
        // It goes on by itself, or it has been released and did not say so in time.
        set({ machine: "running", ...then({ type: "release-failed", reason: REASON }) }),
        set({ machine: "released", ...then({ type: "release-failed", reason: REASON }) }),
      ];
    case "resume":
      if (source.machine === "released") throw new Error("a machine that was released is resumed");
      return [source.machine === "suspended" ? set({ machine: "running" }) : world];
    case "reclaim":
      return [source.machine === "gone" ? world : set({ machine: "running" })];
    case "discard":
      return [set({ machine: "gone" })];
    case "tell":
      return [requireLine(world, effect.line)];
    case "end":
      return [set({ hasEnded: true, vhu: undefined })];
  }
}

function recoverSource(world: World, under: Machines): WorldStep[] {
  const { source, destination } = world;
  const machine: MachineHere = source.machine === "released" ? "suspended" : source.machine;
  const words = [undefined, destination.isDead ? ("dead" as const) : destination.record];
  return words.map((word) => ({
    name: `recover the source${word === undefined ? "" : ` --other ${word}`}`,
    kind: "operator",
    next: withTakenUp(world, () => {
      const { state, effects, line } = under.takeUpSource(source.record, machine, word);
      requireLine(world, line);
      return { ...world, source: { ...source, vhu: taken({ state, effects }) } };
    }),
  }));
}

function destinationSteps(world: World, under: Machines): WorldStep[] {
  const { destination } = world;
  const { vhu, machine } = destination;
  if (destination.isDead) return [];
  const set = (change: Partial<DestinationSide>): World => ({
    ...world,
    destination: { ...destination, ...change },
  });
  const steps: WorldStep[] = [
    {
      name: "the destination's host dies",
      kind: "fault",
      next: set({ vhu: undefined, machine: "gone", isDead: true }),
    },
  ];
  if (machine !== "gone") {
    const came: DestinationEvent[] = vhu === undefined ? [] : [...vhu.came, { type: "vm-died" }];
    steps.push({
      ...{ name: "the destination's machine dies", kind: "fault" },
      next: set({ machine: "gone", ...(vhu === undefined ? {} : { vhu: { ...vhu, came } }) }),
    });
  }
  if (vhu === undefined) {
    // A process that is still being loaded ends with its loader.
    if (machine === "loading")
      steps.push({ name: "what was loading ends", kind: "work", next: set({ machine: "gone" }) });
    if (!destination.hasEnded) steps.push(...recoverDestination(world, under));
    return steps;
  }
  steps.push({ name: "the destination's vhu dies", kind: "fault", next: set({ vhu: undefined }) });
  const [effect, ...rest] = vhu.effects;
  if (effect !== undefined) {
    const done = set({ vhu: { ...vhu, effects: rest } });
    return [
      ...steps,
      ...performDestination(done, effect).map((next) => ({
        name: `destination: ${label(effect)}`,
        kind: "work" as const,
        next,
      })),
    ];
  }
  const on = (event: DestinationEvent, changed: Partial<DestinationSide> = {}, came = vhu.came): World => {
    const { state, effects } = under.onDestinationEvent(vhu.state, event);
    return set({ ...changed, vhu: { state, effects, came } });
  };
  const [first, ...later] = vhu.came;
  if (first !== undefined)
    steps.push({ name: `destination: ${first.type}`, kind: "work", next: on(first, {}, later) });
  if (vhu.state.name === "receiving" && machine === "loading" && world.isSent) {
    steps.push({
      name: "all of it is loaded",
      kind: "work",
      next: on({ type: "loaded" }, { machine: "paused" }),
    });
  }
  if (vhu.state.name === "receiving") {
    steps.push({ name: "the load fails", kind: "fault", next: on({ type: "load-failed", reason: REASON }) });
  }
  for (const type of world.toDestination) {
    const message = type === "released" ? { type } : { type, reason: REASON };
    steps.push({
      name: `the destination gets "${type}"`,
      kind: "message",
      next: on({ type: "message", message }),
    });
  }
  steps.push({
    name: "the destination gives up",
    kind: "fault",
    next: on({ type: "give-up", reason: REASON }),
  });
  steps.push({
    name: "the destination is connected again",
    kind: "message",
    next: on({ type: "connected" }),
  });
  return steps;
}

function performDestination(world: World, effect: DestinationEffect): World[] {
  const { destination } = world;
  const set = (change: Partial<DestinationSide>): World => ({
    ...world,
    destination: { ...destination, ...change },
  });
  const vhu = destination.vhu!;
  const then = (event: DestinationEvent) => ({ vhu: { ...vhu, came: [...vhu.came, event] } });
  switch (effect.do) {
    case "record":
      return [set({ record: effect.state })];
    case "send":
      return [{ ...world, toSource: withMessage(world.toSource, effect.message.type) }];
    case "resume":
      if (destination.machine === "gone") return [set(then({ type: "vm-died" }))];
      return [
        set({ machine: "running", ...then({ type: "resumed" }) }),
        // It runs, and did not say so in time.
        set({ machine: "running", ...then({ type: "resume-failed", reason: REASON }) }),
        set({ ...then({ type: "resume-failed", reason: REASON }) }),
      ];
    case "discard":
      return [set({ machine: "gone" })];
    case "tell":
      return [requireLine(world, effect.line)];
    case "end":
      return [set({ hasEnded: true, vhu: undefined })];
  }
}

function recoverDestination(world: World, under: Machines): WorldStep[] {
  const { source, destination } = world;
  const { machine } = destination;
  const here: MachineHere = machine === "running" || machine === "gone" ? machine : "suspended";
  const words = [undefined, source.isDead ? ("dead" as const) : source.record];
  const steps: WorldStep[] = words.map((word) => ({
    name: `recover the destination${word === undefined ? "" : ` --other ${word}`}`,
    kind: "operator",
    next: withTakenUp(world, () => {
      const { state, effects, line } = under.takeUpDestination(destination.record, here, word);
      requireLine(world, line);
      return { ...world, destination: { ...destination, vhu: taken({ state, effects }) } };
    }),
  }));
  if (destination.record === "loaded") {
    const vhu = taken(abandon(REASON));
    steps.push({
      name: "recover the destination --abandon",
      kind: "operator",
      next: { ...world, destination: { ...destination, vhu } },
    });
  }
  return steps;
}

/** A word that cannot be true is refused, and nothing changes. */
function withTakenUp(world: World, next: () => World): World {
  try {
    return next();
  } catch (error) {
    if (error instanceof StateError) return world;
    throw error;
  }
}

function taken<State, Effect>({
  state,
  effects,
}: {
  readonly state: State;
  readonly effects: readonly Effect[];
}) {
  return effects.length === 0 ? undefined : { state, effects, came: [] };
}

function withMessage<Type extends string>(sent: readonly Type[], type: Type): readonly Type[] {
  return sent.includes(type) ? sent : [...sent, type].sort();
}

function label(effect: SourceEffect | DestinationEffect): string {
  if (effect.do === "record") return `record ${effect.state}`;
  return effect.do === "send" ? `send ${effect.message.type}` : effect.do;
}

function requireLine(world: World, line: string): World {
  if (line === "" || line.includes("\n")) throw new Error(`not one line: ${JSON.stringify(line)}`);
  return world;
}
