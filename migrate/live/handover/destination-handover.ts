/**
 * The destination's side of a hand-over: a pure machine. handover-messages.ts says how its effects are performed.
 *
 * It resumes only after the record "owner", which it writes only after the source has said "released". Until then it may drop
 * the machine at any time: the record "abandoned" comes first, and is for good, so that the source may take the machine back.
 */
import type { DestinationEffect, DestinationStateName, SourceMessage, Step } from "./handover-messages.ts";

export interface DestinationState {
  readonly name: DestinationStateName;
  readonly isEnded: boolean;
}

export type DestinationEvent =
  | { readonly type: "message"; readonly message: SourceMessage }
  /** `prepareLoad` is done: all is here and verified. */
  | { readonly type: "loaded" }
  | { readonly type: "load-failed"; readonly reason: string }
  | { readonly type: "resumed" }
  | { readonly type: "resume-failed"; readonly reason: string }
  /** The machine's process has ended. */
  | { readonly type: "vm-died" }
  /** There is a connection (again). */
  | { readonly type: "connected" }
  /** Ctrl-C, or no connection within `--retry`. */
  | { readonly type: "give-up"; readonly reason: string };

export type DestinationStep = Step<DestinationState, DestinationEffect>;

/** Before the first process is started. Record it with the operation's begin. */
export const destinationStart: DestinationState = { name: "receiving", isEnded: false };

export function onDestinationEvent(state: DestinationState, event: DestinationEvent): DestinationStep {
  switch (event.type) {
    case "message":
      return onMessage(state, event.message);
    case "loaded":
      return state.name === "receiving" ? loaded() : unchanged(state);
    case "load-failed":
      return state.name === "receiving" ? abandon(event.reason) : unchanged(state);
    case "resumed":
      return state.name === "owner" ? running() : unchanged(state);
    case "resume-failed":
      return state.name === "owner" ? notResumed(state, event.reason) : unchanged(state);
    case "vm-died":
      return onDeath(state);
    case "connected":
      return { state, effects: resend(state) };
    case "give-up":
      return onGiveUp(state, event.reason);
  }
}

function onMessage(state: DestinationState, message: SourceMessage): DestinationStep {
  if (message.type === "aborted") {
    return state.name === "receiving" || state.name === "loaded"
      ? abandon(`the source keeps it: ${message.reason}`)
      : unchanged(state);
  }
  switch (state.name) {
    case "receiving":
      return abandon("the source's machine has ended before all of it was here");
    case "loaded":
      return own();
    default:
      return { state, effects: resend(state) };
  }
}

function loaded(): DestinationStep {
  return {
    state: { name: "loaded", isEnded: false },
    effects: [
      { do: "record", state: "loaded" },
      { do: "send", message: { type: "loaded" } },
    ],
  };
}

/** The machine is this host's; then it runs. */
export function own(): DestinationStep {
  return {
    state: { name: "owner", isEnded: false },
    effects: [{ do: "record", state: "owner" }, { do: "resume" }],
  };
}

function running(): DestinationStep {
  return {
    state: { name: "running", isEnded: true },
    effects: [
      { do: "record", state: "running" },
      { do: "send", message: { type: "running" } },
      { do: "end", outcome: { result: "done", message: "it runs here" } },
    ],
  };
}

/** Its process is there: it may run, or can still be made to. Only its death makes it lost. */
function notResumed(state: DestinationState, reason: string): DestinationStep {
  const line = `the machine is this host's, and did not say that it runs: ${reason}; recover tries again`;
  return { state, effects: [{ do: "tell", line }] };
}

/** Never to be run here, for good. */
export function abandon(reason: string): DestinationStep {
  return {
    state: { name: "abandoned", isEnded: true },
    effects: [
      { do: "record", state: "abandoned" },
      { do: "discard" },
      { do: "send", message: { type: "abandoned", reason } },
      { do: "end", outcome: { result: "failed", message: `${reason}; dropped here` } },
    ],
  };
}

/**
 * It was this host's, may have run, and its process has ended. What is left of it is ended before that is written down: whoever
 * reads the record may let it run at the source.
 */
export function lost(reason: string): DestinationStep {
  return {
    state: { name: "lost", isEnded: true },
    effects: [
      { do: "discard" },
      { do: "record", state: "lost" },
      { do: "send", message: { type: "lost", reason } },
      { do: "end", outcome: { result: "failed", message: `${reason}: the machine is lost here` } },
    ],
  };
}

function onDeath(state: DestinationState): DestinationStep {
  const reason = "the machine's process has ended at the destination";
  if (state.name === "receiving" || state.name === "loaded") return abandon(reason);
  return state.name === "owner" ? lost(reason) : unchanged(state);
}

function onGiveUp(state: DestinationState, reason: string): DestinationStep {
  if (state.name === "receiving") return abandon(reason);
  if (state.name !== "loaded") return unchanged(state);
  const line = `${reason}: all of the machine is here, and the source has not said that it has given it up; look there`;
  return { state, effects: [{ do: "tell", line }] };
}

function resend(state: DestinationState): DestinationEffect[] {
  switch (state.name) {
    case "loaded":
    case "running":
      return [{ do: "send", message: { type: state.name } }];
    case "abandoned":
    case "lost":
      return [{ do: "send", message: { type: state.name, reason: "said again" } }];
    default:
      return [];
  }
}

function unchanged(state: DestinationState): DestinationStep {
  return { state, effects: [] };
}
