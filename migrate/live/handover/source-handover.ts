/**
 * The source's side of a hand-over: a pure machine. handover-messages.ts says how its effects are performed.
 *
 * Why never two: `release` comes after `loaded`, the message "released" after the record "released", and the machine is taken
 * back (`reclaim`) only where that record was never written, or the destination has said, for good, that it never runs it.
 * Why never none: until the record "released" the machine is the source's, and goes on by itself when vhu dies; afterwards the
 * destination has all of it, or says that it has dropped it.
 */
import type { DestinationMessage, SourceEffect, SourceStateName, Step } from "./handover-messages.ts";

export interface SourceState {
  readonly name: SourceStateName;
  /** Everything has gone out, and the machine is suspended. */
  readonly isSent: boolean;
  /** The machine's process has ended: there is nothing to resume here. */
  readonly isGone: boolean;
  /** The destination has dropped it while `release` was under way. */
  readonly isRefused: boolean;
  readonly isEnded: boolean;
}

export type SourceEvent =
  | { readonly type: "message"; readonly message: DestinationMessage }
  /** `startPrecopy` is done: the machine is suspended, and all its state has gone out. */
  | { readonly type: "sent" }
  | { readonly type: "released" }
  | { readonly type: "release-failed"; readonly reason: string }
  /** The machine's process has ended. */
  | { readonly type: "vm-died" }
  /** There is a connection (again). */
  | { readonly type: "connected" }
  /** Ctrl-C, an error of `startPrecopy`, or no connection within `--retry`. */
  | { readonly type: "give-up"; readonly reason: string };

export type SourceStep = Step<SourceState, SourceEffect>;

/** Before the first byte. Record it with the operation's begin. */
export const sourceStart: SourceState = {
  ...{ name: "sending", isSent: false, isGone: false, isRefused: false, isEnded: false },
};

export function onSourceEvent(state: SourceState, event: SourceEvent): SourceStep {
  if (state.isEnded)
    return { state, effects: event.type === "connected" ? resend(state) : answer(state, event) };
  switch (event.type) {
    case "message":
      return onMessage(state, event.message);
    case "sent":
      return { state: { ...state, isSent: true }, effects: [] };
    case "released":
      return state.name === "releasing" ? onReleased(state) : unchanged(state);
    case "release-failed":
      return state.name === "releasing" ? keep(state, event.reason) : unchanged(state);
    case "vm-died":
      return onDeath(state);
    case "connected":
      return { state, effects: resend(state) };
    case "give-up":
      return onGiveUp(state, event.reason);
  }
}

function onMessage(state: SourceState, message: DestinationMessage): SourceStep {
  switch (message.type) {
    case "loaded":
      if (state.name !== "sending") return { state, effects: resend(state) };
      // A machine that is gone cannot run here: nothing is to be released.
      if (state.isGone) return released(state);
      return {
        state: { ...state, name: "releasing" },
        effects: [{ do: "record", state: "releasing" }, { do: "release" }],
      };
    case "abandoned":
    case "lost":
      if (state.name === "releasing") return { state: { ...state, isRefused: true }, effects: [] };
      if (message.type === "lost" && state.name === "released")
        return { state, effects: [tellLost(message.reason)] };
      return keep(state, `the destination has dropped it: ${message.reason}`);
    case "running":
      return state.name === "released" ? moved(state) : unchanged(state);
  }
}

function onReleased(state: SourceState): SourceStep {
  return state.isRefused ? keep(state, "the destination has dropped it") : released(state);
}

function released(state: SourceState): SourceStep {
  return {
    state: { ...state, name: "released" },
    effects: [
      { do: "record", state: "released" },
      { do: "send", message: { type: "released" } },
    ],
  };
}

function onDeath(state: SourceState): SourceStep {
  const gone = { ...state, isGone: true };
  if (state.name === "released") return { state: gone, effects: [] };
  // All of it may be there: the destination's word is waited for.
  if (state.name === "sending" && state.isSent) return { state: gone, effects: [] };
  if (state.name === "releasing" && !state.isRefused) return released(gone);
  return keep(gone, "the machine's process has ended");
}

function onGiveUp(state: SourceState, reason: string): SourceStep {
  // A machine that is gone can run only there, if all of it has arrived.
  if (state.name === "sending") return state.isGone && state.isSent ? released(state) : keep(state, reason);
  // `release` tells in a moment; what follows from it is the same.
  if (state.name === "releasing") return unchanged(state);
  const line = `${reason}: the machine is not the source's any more, and the destination has not said that it runs; look there`;
  return { state, effects: [{ do: "tell", line }] };
}

/** The machine stays here. The record comes first: from then on, "loaded" is answered with "aborted". */
function keep(state: SourceState, reason: string): SourceStep {
  const back: SourceEffect = state.name === "sending" ? { do: "resume" } : { do: "reclaim" };
  const message = state.isGone ? `${reason}; the machine is lost` : `${reason}; it goes on here`;
  return {
    state: { ...state, name: "kept", isEnded: true },
    effects: [
      { do: "record", state: "kept" },
      ...(state.isGone ? [] : [back]),
      { do: "send", message: { type: "aborted", reason } },
      { do: "end", outcome: { result: "failed", message } },
    ],
  };
}

function moved(state: SourceState): SourceStep {
  return {
    state: { ...state, name: "moved", isEnded: true },
    effects: [
      { do: "record", state: "moved" },
      { do: "discard" },
      { do: "end", outcome: { result: "done", message: "it runs at the destination" } },
    ],
  };
}

/** What the destination must know, where a connection was lost or it asks again. */
function resend(state: SourceState): SourceEffect[] {
  if (state.name === "released") return [{ do: "send", message: { type: "released" } }];
  if (state.name === "kept")
    return [{ do: "send", message: { type: "aborted", reason: "it goes on at the source" } }];
  return [];
}

function answer(state: SourceState, event: SourceEvent): SourceEffect[] {
  return event.type === "message" && event.message.type === "loaded" ? resend(state) : [];
}

function tellLost(reason: string): SourceEffect {
  const line = `the destination took the machine and lost it (${reason}): recover with --other lost takes it back as it was then`;
  return { do: "tell", line };
}

function unchanged(state: SourceState): SourceStep {
  return { state, effects: [] };
}
