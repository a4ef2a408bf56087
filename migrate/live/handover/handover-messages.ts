/**
 * What a hand-over says and does, as plain data.
 *
 * A machine of one side (source-handover.ts, destination-handover.ts) is given an event and gives back its new state and effects. The
 * caller performs the effects one after the other, each to its end, before it gives the next event:
 *
 * - `record`: write it into the operation's log (`operation.phase(state, { handover })`), durably, before the next effect.
 * - `send`: give the message to the other side. Without a connection it is dropped: once there is one again, the event
 *   `connected` sends what counts.
 * - `release`, `resume`, `reclaim`, `discard`: the driver's methods. The event in the comment tells how it went.
 * - `tell`: one line for the user.
 * - `end`: the operation's outcome; nothing comes after it. The connection may be closed once the other side has what was sent.
 *
 * A caller that dies between two effects is taken up by `takeUpSource` and `takeUpDestination` from what was recorded last.
 */

/** From the source. */
export type SourceMessage =
  /** The machine can never run on the source again: take it. */
  | { readonly type: "released" }
  /** The source keeps the machine: drop what you have. */
  | { readonly type: "aborted"; readonly reason: string };

/** From the destination. */
export type DestinationMessage =
  /** Everything has arrived and was verified; only `resume` is missing. */
  | { readonly type: "loaded" }
  /** The destination has dropped the machine and never runs it. */
  | { readonly type: "abandoned"; readonly reason: string }
  /** It runs there. */
  | { readonly type: "running" }
  /** It was the destination's, and its process has ended there. */
  | { readonly type: "lost"; readonly reason: string };

/** What the source's log says; the order is that of a move that goes well, and "kept" where it does not. */
export type SourceStateName = "sending" | "releasing" | "released" | "moved" | "kept";
/** What the destination's log says. "abandoned" and "lost" are where it does not go well. */
export type DestinationStateName = "receiving" | "loaded" | "owner" | "running" | "abandoned" | "lost";

export interface EndOutcome {
  readonly result: "done" | "failed" | "cancelled" | "recovered";
  readonly message: string;
}

interface Record_<Name> {
  readonly do: "record";
  readonly state: Name;
}
interface Send<Message> {
  readonly do: "send";
  readonly message: Message;
}
interface Tell {
  readonly do: "tell";
  readonly line: string;
}
interface End {
  readonly do: "end";
  readonly outcome: EndOutcome;
}
interface Discard {
  readonly do: "discard";
}

export type SourceEffect =
  | Record_<SourceStateName>
  | Send<SourceMessage>
  /** `driver.release()`; then the event "released", "release-failed", or "vm-died" where its process is gone. */
  | { readonly do: "release" }
  /** `driver.resume()`: it was never released. */
  | { readonly do: "resume" }
  /** `driver.reclaim()`: it may have been released, and the other side never runs it. */
  | { readonly do: "reclaim" }
  | Discard
  | Tell
  | End;

export type DestinationEffect =
  | Record_<DestinationStateName>
  | Send<DestinationMessage>
  /** `driver.resume()`; then the event "resumed", "resume-failed", or "vm-died" where its process is gone. */
  | { readonly do: "resume" }
  | Discard
  | Tell
  | End;

export interface Step<State, Effect> {
  readonly state: State;
  readonly effects: readonly Effect[];
}
