import { PeerError, StateError, VhuError } from "../../src/errors.ts";
import { isRunning, type ProcessIdentity } from "../../src/sys/mod.ts";
import type { VmDriver } from "../driver.ts";
import type { Operation } from "../operations/mod.ts";
import {
  type DestinationEvent,
  type DestinationState,
  destinationStart,
  onDestinationEvent,
} from "./handover/destination-handover.ts";
import type { DestinationEffect, DestinationMessage, SourceMessage } from "./handover/handover-messages.ts";
import { hasEnded } from "./handover/has-ended.ts";
import type { LiveMessage } from "./messages.ts";
import type { Session } from "./session.ts";
import { Steps } from "./steps.ts";

/** What the messages of a hand-over carry beyond what it is about. */
export interface HandoverFigures {
  loadMs: number;
  resumeMs: number;
  memoryBytes: number;
  address: string;
}

/** The destination's side of a hand-over: does what its machine of states says, each thing to its end. */
export class DestinationSide {
  #state: DestinationState = destinationStart;
  readonly steps = new Steps();
  readonly #later: DestinationEvent[] = [];
  readonly #ended = Promise.withResolvers<void>();
  readonly figures: HandoverFigures = { loadMs: 0, resumeMs: 0, memoryBytes: 0, address: "" };
  /** Once it is known. */
  driver: VmDriver | undefined;
  /** Called when the machine is never to run here: what was made for it goes. */
  onAbandoned: (() => void) | undefined;

  constructor(
    readonly session: Session,
    readonly operation: Operation,
    readonly tell: (line: string) => void,
  ) {}

  get name(): DestinationState["name"] {
    return this.#state.name;
  }
  get isEnded(): boolean {
    return this.#state.isEnded;
  }

  /** All of its end is done. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  async give(event: DestinationEvent): Promise<void> {
    this.#later.push(event);
    for (let next = this.#later.shift(); next !== undefined; next = this.#later.shift()) {
      const { state, effects } = onDestinationEvent(this.#state, next);
      this.#state = state;
      for (const effect of effects) {
        await this.#perform(effect);
        this.steps.done("state" in effect ? `${effect.do} ${effect.state}` : effect.do);
      }
    }
    if (this.#state.isEnded) this.#ended.resolve();
  }

  /**
   * What the source said, if it is about the hand-over.
   * @throws PeerError for anything else; StateError when the machine is this host's and was not let run: only a recovery helps
   */
  async hear(message: LiveMessage): Promise<void> {
    const process = this.#vmProcess;
    // Taken and then found dead, it would be lost; dropped before, the source takes it back.
    if (this.name === "loaded" && process !== undefined && !isRunning(process))
      await this.give({ type: "vm-died" });
    await this.give({ type: "message", message: sourceMessage(message) });
    if (this.name !== "owner") return;
    // Nobody says anything any more: who waited here would keep the operation from being recovered.
    const { id } = this.operation;
    throw new StateError(
      `the machine is this host's and does not run yet: vhu migrate recover ${id} lets it run`,
    );
  }

  get #vmProcess(): ProcessIdentity | undefined {
    return this.operation.record.facts.started?.[0];
  }

  async #perform(effect: DestinationEffect): Promise<void> {
    switch (effect.do) {
      case "record":
        return this.operation.phase(effect.state, { handover: { state: effect.state } });
      case "send":
        return this.#send(effect.message);
      case "resume":
        return this.#resume();
      case "discard":
        return this.#discard();
      case "tell":
        return this.tell(effect.line);
      case "end":
        return this.operation.end(effect.outcome);
    }
  }

  async #send(message: DestinationMessage): Promise<void> {
    if (this.session.failure !== undefined) return;
    const { loadMs, memoryBytes, resumeMs, address } = this.figures;
    const words: LiveMessage =
      message.type === "loaded"
        ? { kind: "loaded", loadMs, memoryBytes }
        : message.type === "running"
          ? { kind: "running", resumeMs, address }
          : { kind: message.type, reason: message.reason };
    await this.session.say(words).catch(() => {});
  }

  async #resume(): Promise<void> {
    const startMs = performance.now();
    try {
      await this.driver?.resume();
      this.figures.resumeMs = performance.now() - startMs;
      this.#later.push({ type: "resumed" });
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      const isGone = await hasEnded(this.#vmProcess);
      this.#later.push(isGone ? { type: "vm-died" } : { type: "resume-failed", reason: error.message });
    }
  }

  async #discard(): Promise<void> {
    try {
      await this.driver?.discard();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      // Whoever has ended by itself cannot be told to.
      if (await hasEnded(this.#vmProcess)) return;
      this.tell(`what had arrived of the machine could not be ended here: ${error.message}`);
    }
    // One that is lost has run, and may have written to its disks: they stay.
    if (this.name === "abandoned") this.onAbandoned?.();
  }
}

function sourceMessage(message: LiveMessage): SourceMessage {
  if (message.kind === "released") return { type: "released" };
  if (message.kind === "aborted") return { type: "aborted", reason: message.reason };
  throw new PeerError(`the sender said "${message.kind}" in the middle of the hand-over`);
}
