import { PeerError, VhuError } from "../../src/errors.ts";
import type { VmDriver } from "../driver.ts";
import type { Operation } from "../operations/mod.ts";
import type { DestinationMessage, SourceEffect } from "./handover/handover-messages.ts";
import { hasEnded } from "./handover/has-ended.ts";
import {
  onSourceEvent,
  type SourceEvent,
  type SourceState,
  sourceStart,
} from "./handover/source-handover.ts";
import type { LiveMessage } from "./messages.ts";
import type { Session } from "./session.ts";
import { Steps } from "./steps.ts";

/** The source's side of a hand-over: does what its machine of states says, each thing to its end. */
export class SourceSide {
  #state: SourceState = sourceStart;
  readonly steps = new Steps();
  readonly #later: SourceEvent[] = [];
  /** The user gave up, and nothing failed. */
  isCancelled = false;
  /** The machine may stand still here: the log stays open, so that recovery can let it run. */
  #mayStandStill = false;

  constructor(
    readonly driver: VmDriver,
    readonly session: Session,
    readonly operation: Operation,
    readonly tell: (line: string) => void,
  ) {}

  get name(): SourceState["name"] {
    return this.#state.name;
  }
  get isEnded(): boolean {
    return this.#state.isEnded;
  }

  async give(event: SourceEvent): Promise<void> {
    this.#later.push(event);
    for (let next = this.#later.shift(); next !== undefined; next = this.#later.shift()) {
      const { state, effects } = onSourceEvent(this.#state, next);
      this.#state = state;
      for (const effect of effects) {
        await this.#perform(effect);
        this.steps.done("state" in effect ? `${effect.do} ${effect.state}` : effect.do);
      }
    }
  }

  /** What the other side said, if it is about the hand-over. @throws PeerError for anything else */
  async hear(message: LiveMessage): Promise<void> {
    await this.give({ type: "message", message: destinationMessage(message) });
  }

  async #perform(effect: SourceEffect): Promise<void> {
    const { driver, operation } = this;
    switch (effect.do) {
      case "record":
        return this.#record(effect.state);
      case "send":
        return this.#send(effect.message);
      case "release":
        return this.#release();
      case "resume":
        return this.#attempt("let go on", () => driver.resume());
      case "reclaim":
        return this.#attempt("taken back", () => driver.reclaim());
      case "discard":
        return this.#attempt("ended", () => driver.discard());
      case "tell":
        return this.tell(effect.line);
      case "end":
        if (this.#mayStandStill) return;
        return operation.end(this.isCancelled ? { ...effect.outcome, result: "cancelled" } : effect.outcome);
    }
  }

  #record(state: SourceState["name"]): void {
    const facts = { handover: { state } };
    // Recovery takes "releasing" for "sending": the machine stands still meanwhile, and does not wait for the disk.
    if (state === "releasing") this.operation.note(state, facts);
    else this.operation.phase(state, facts);
  }

  /** It arrives when there is a connection (again); without one, nobody is left to be told. */
  async #send(
    message: { readonly type: "released" } | { readonly type: "aborted"; readonly reason: string },
  ) {
    const { type, ...rest } = message;
    if (this.session.failure !== undefined) return;
    await this.session.say({ kind: type, ...rest } as LiveMessage).catch(() => {});
  }

  async #release(): Promise<void> {
    try {
      await this.driver.release();
      this.#later.push({ type: "released" });
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      const isGone = await hasEnded(this.operation.record.facts.vmProcess);
      this.#later.push(isGone ? { type: "vm-died" } : { type: "release-failed", reason: error.message });
    }
  }

  /** The machine may be gone; then there is nothing that could be done about it here. */
  async #attempt(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      if (what === "ended") return;
      this.#mayStandStill = true;
      const { id } = this.operation;
      this.tell(`the machine could not be ${what}: ${error.message}; vhu migrate recover ${id} tries again`);
    }
  }
}

function destinationMessage(message: LiveMessage): DestinationMessage {
  switch (message.kind) {
    case "loaded":
    case "running":
      return { type: message.kind };
    case "abandoned":
    case "lost":
      return { type: message.kind, reason: message.reason };
    default:
      throw new PeerError(`the other side said "${message.kind}" in the middle of the hand-over`);
  }
}
