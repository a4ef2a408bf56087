/**
 * A hand-over after the vhu that did it has died: what this host's record, the state of the machine here, and a word of the
 * other host (a message, or what its `vhu migrate status` shows, told by the user with --other) lead to.
 */
import { StateError } from "../../../src/errors.ts";
import { abandon, type DestinationStep, lost, own } from "./destination-handover.ts";
import type { DestinationStateName, SourceEffect, SourceStateName } from "./handover-messages.ts";
import type { SourceState, SourceStep } from "./source-handover.ts";

/** Of the machine's process on this host. "suspended": it stands still, for whatever reason. */
export type MachineHere = "running" | "suspended" | "gone";

/** What the other host's log says; "dead": the user warrants that it never runs the machine. */
export type SourceWord = SourceStateName | "dead";
export type DestinationWord = DestinationStateName | "dead";

/**
 * `line` says how things are and what to do, for `status`. Without effects there is nothing to do here, and no events to give:
 * only the other host's word helps.
 */
export type TakenUp<Step> = Step & { readonly line: string };

const REFUSED: readonly DestinationWord[] = ["abandoned", "lost", "dead"];

/** @throws StateError for a word that cannot be true */
export function takeUpSource(
  name: SourceStateName,
  machine: MachineHere,
  word?: DestinationWord,
): TakenUp<SourceStep> {
  const isGone = machine === "gone";
  switch (name) {
    case "sending":
    case "releasing":
      // "released" was never recorded, so it was never said.
      return isGone
        ? takeUpGone(name, word)
        : takeBack(machine, "it was not handed over: recover lets it run here");
    case "kept":
      return takeBack(machine, isGone ? "it was kept here, and its process has ended" : "it is this host's");
    case "moved":
      return endMoved(isGone);
    case "released":
      return takeUpReleased(machine, word);
  }
}

/**
 * The machine's process has ended before it was handed over. It may have gone on after vhu died, so what the destination has may
 * be older than its disks: only the user can tell whether that is better than nothing.
 */
function takeUpGone(name: SourceStateName, word: DestinationWord | undefined): TakenUp<SourceStep> {
  if (word === "loaded") {
    return {
      ...step("released", [
        { do: "record", state: "released" },
        { do: "send", message: { type: "released" } },
      ]),
      line: "its process has ended here: recover gives it up, then there recover with --other released",
    };
  }
  if (word === undefined) {
    return {
      ...step(name, []),
      line: "its process has ended here, and it was not handed over: start it anew and recover here with --other dead; or, where `vhu migrate status` there shows loaded, recover with --other loaded to run what was sent",
    };
  }
  return takeBack(
    "gone",
    "its process has ended here, and the destination does not have all of it: start it anew",
  );
}

function takeUpReleased(machine: MachineHere, word: DestinationWord | undefined): TakenUp<SourceStep> {
  if (word === "running") {
    const { state, effects } = endMoved(machine === "gone");
    return {
      state,
      effects: [{ do: "record", state: "moved" }, ...effects],
      line: "it runs at the destination",
    };
  }
  if (word !== undefined && REFUSED.includes(word)) {
    return takeBack(machine, `the destination never runs it (${word}): recover takes it back`);
  }
  const there: Partial<Record<DestinationWord, string>> = {
    receiving: "recover it there first: it drops it, then here with --other abandoned",
    loaded: "there recover with --other released: it then runs there",
    owner: "there recover: it then runs there",
  };
  const next =
    word === undefined
      ? "see `vhu migrate status` there, then recover here with --other and the state that it shows (--other dead if that host will never come back)"
      : there[word];
  return {
    ...step("released", [{ do: "send", message: { type: "released" } }]),
    line: `this host has given it up, and may not run it: ${next}`,
  };
}

function takeBack(machine: MachineHere, line: string): TakenUp<SourceStep> {
  const isGone = machine === "gone";
  return {
    ...step("kept", [
      { do: "record", state: "kept" },
      ...(machine === "suspended" ? [{ do: "reclaim" as const }] : []),
      { do: "send", message: { type: "aborted", reason: "it goes on at the source" } },
      {
        do: "end",
        outcome: { result: "recovered", message: isGone ? "the machine is lost" : "it goes on here" },
      },
    ]),
    line,
  };
}

function endMoved(isGone: boolean): TakenUp<SourceStep> {
  return {
    ...step("moved", [
      ...(isGone ? [] : [{ do: "discard" as const }]),
      { do: "end", outcome: { result: "recovered", message: "it runs at the destination" } },
    ]),
    line: "it runs at the destination: recover ends what is left of it here",
  };
}

function step(name: SourceStateName, effects: readonly SourceEffect[]): SourceStep {
  const isEnded = effects.some((effect) => effect.do === "end");
  return {
    state: { name, isSent: true, isGone: false, isRefused: false, isEnded } satisfies SourceState,
    effects,
  };
}

/** @throws StateError for a word that cannot be true */
export function takeUpDestination(
  name: DestinationStateName,
  machine: MachineHere,
  word?: SourceWord,
): TakenUp<DestinationStep> {
  const isGone = machine === "gone";
  switch (name) {
    case "receiving":
      return { ...abandon("it had not arrived"), line: "not all of it is here: recover drops it" };
    case "abandoned":
      return {
        ...endAs(name, "it was dropped here"),
        line: "it was dropped here, and is the source's (there: recover with --other abandoned)",
      };
    case "lost":
      return {
        ...endAs(name, "it was lost here"),
        line: "it was lost here: the source can take it back as it was at the hand-over, recover with --other lost there",
      };
    case "running":
      return { ...endAs(name, "it runs here"), line: "it is this host's, and was started" };
    case "owner":
      return isGone
        ? {
            ...lost("its process has ended"),
            line: "it was this host's, and its process has ended: recover says so",
          }
        : { ...own(), line: "it is this host's: recover lets it run" };
    case "loaded":
      return takeUpLoaded(isGone, word);
  }
}

function takeUpLoaded(isGone: boolean, word: SourceWord | undefined): TakenUp<DestinationStep> {
  if (isGone) {
    return {
      ...abandon("its process has ended"),
      line: "its process has ended here: recover drops it, then on the source recover with --other abandoned",
    };
  }
  switch (word) {
    case "released":
    case "dead":
      return { ...own(), line: "the source never runs it again: recover lets it run here" };
    case "kept":
      return { ...abandon("the source keeps it"), line: "the source keeps it: recover drops it here" };
    case "moved":
      throw new StateError(
        "the source cannot have moved a machine that this host has not taken: look there again",
      );
    default: {
      const next =
        word === undefined
          ? "see `vhu migrate status` there, then recover here with --other and the state that it shows (--other dead if that host will never come back, --abandon to drop it)"
          : "recover it there first, then here with --other and the state that it then has";
      const wait: DestinationStep = {
        state: { name: "loaded", isEnded: false },
        effects: [{ do: "send", message: { type: "loaded" } }],
      };
      return { ...wait, line: `all of it is here, and waits for the source's word: ${next}` };
    }
  }
}

function endAs(name: DestinationStateName, message: string): DestinationStep {
  const discard = name === "running" ? [] : [{ do: "discard" as const }];
  return {
    state: { name, isEnded: true },
    effects: [...discard, { do: "end", outcome: { result: "recovered", message } }],
  };
}
