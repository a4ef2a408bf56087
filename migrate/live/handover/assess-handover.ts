import { StateError, UsageError } from "../../../src/errors.ts";
import { isRunning } from "../../../src/sys/mod.ts";
import {
  type Assessment,
  type FoundState,
  type LookAtMachine,
  type OperationRecord,
  type RecoveryAction,
  startedProcesses,
} from "../../operations/mod.ts";
import { abandon } from "./destination-handover.ts";
import type {
  DestinationEffect,
  DestinationStateName,
  SourceEffect,
  SourceStateName,
} from "./handover-messages.ts";
import {
  type DestinationWord,
  type MachineHere,
  type SourceWord,
  type TakenUp,
  takeUpDestination,
  takeUpSource,
} from "./take-up.ts";

/** What the user says of the other host: `--other WORD`, `--abandon`. */
export interface HandoverWord {
  readonly other?: string | undefined;
  readonly abandon?: boolean | undefined;
}

const SOURCE_STATES: readonly SourceStateName[] = ["sending", "releasing", "released", "moved", "kept"];
const DESTINATION_STATES: readonly DestinationStateName[] = [
  ...(["receiving", "loaded", "owner", "running"] as const),
  ...(["abandoned", "lost"] as const),
];

/** What an operation's log says of its hand-over: `operation.phase(state, { handover: { state } })`. */
function handoverStateOf({ kind, facts, phase }: OperationRecord): string {
  const state = facts.handover?.state;
  if (typeof state === "string") return state;
  return phase === "begun" || kind === "send" ? "sending" : "receiving";
}

/**
 * A send or a receive that broke off. Its line begins with the state that the other host's `recover --other` wants to hear.
 * @throws UsageError for a word that is none; StateError for one that cannot be true
 */
export async function assessHandover(
  record: OperationRecord,
  look: LookAtMachine,
  word: HandoverWord = {},
): Promise<Assessment> {
  const isSource = record.kind === "send";
  const address = isSource ? record.source : (record.facts.runsAt ?? record.target);
  const machine = machineHere(record, address, await look(address));
  const name = handoverStateOf(record);
  const taken = isSource ? assessSource(name, machine, word) : assessDestination(name, machine, word);
  const toldActions = (taken.effects as readonly (SourceEffect | DestinationEffect)[]).flatMap((effect) =>
    actionsOf(record, address, effect, taken.state.name),
  );
  // The driver's answer is not waited for by an event: a resume that fails ends the recovery.
  const runs = !isSource && taken.effects.some((effect) => effect.do === "resume");
  const actions = runs ? [...toldActions, recordAction("running")] : toldActions;
  const ended = taken.effects.find((effect) => effect.do === "end");
  const command = `vhu migrate recover ${record.id}`;
  return {
    line: `${name}: ${address}: ${taken.line} (here: ${command})`,
    actions,
    afterwards: runs ? "it runs here" : (ended?.outcome.message ?? taken.line),
    staysOpen: ended === undefined && !runs,
  };
}

function assessSource(name: string, machine: MachineHere, { other, abandon: drop }: HandoverWord) {
  if (drop) throw new UsageError("--abandon is for the host that receives");
  const word =
    other === undefined ? undefined : wordOf<DestinationWord>(other, [...DESTINATION_STATES, "dead"]);
  return takeUpSource(wordOf(name, SOURCE_STATES), machine, word);
}

function assessDestination(name: string, machine: MachineHere, { other, abandon: drop }: HandoverWord) {
  const state = wordOf(name, DESTINATION_STATES);
  if (drop) {
    if (state !== "loaded")
      throw new StateError(`--abandon is for a machine that is "loaded"; this one is "${state}"`);
    const taken: TakenUp<ReturnType<typeof abandon>> = {
      ...abandon("dropped by the user"),
      line: "recover drops it",
    };
    return taken;
  }
  const word = other === undefined ? undefined : wordOf<SourceWord>(other, [...SOURCE_STATES, "dead"]);
  return takeUpDestination(state, machine, word);
}

function wordOf<Word extends string>(text: string, words: readonly Word[]): Word {
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw new UsageError(`"${text}" is no state of the other side of a move: give one of ${words.join(", ")}`);
}

/** A socket that is gone does not mean that the process is. */
function machineHere({ facts, kind }: OperationRecord, address: string, found: FoundState): MachineHere {
  const processes = kind === "send" ? [facts.vmProcess] : (facts.started ?? []);
  const isThere = processes.some((process) => process !== undefined && isRunning(process));
  if (found === "running" || found === "suspended") return found;
  if (found === "held") return "suspended";
  if (!isThere && (found === "gone" || processes.length > 0)) return "gone";
  throw new StateError(
    `${address} does not answer, but its process is there: see whether something else holds its monitor, and try again`,
  );
}

/** Messages have no way without a connection; the other host is told by its own recover. */
function actionsOf(
  record: OperationRecord,
  address: string,
  effect: SourceEffect | DestinationEffect,
  name: SourceStateName | DestinationStateName,
): RecoveryAction[] {
  switch (effect.do) {
    case "record":
      return [recordAction(effect.state), ...dropActions(record, address, effect.state)];
    case "resume":
    case "reclaim":
      return [{ do: "resume-machine", address }];
    case "discard":
      return [...discardActions(record), ...imageActions(record, name)];
    default:
      return [];
  }
}

function recordAction(state: SourceStateName | DestinationStateName): RecoveryAction {
  return { do: "record", phase: state, facts: { handover: { state } } };
}

/** A machine that was let go may run on with what copied its disks. */
function dropActions(
  { facts }: OperationRecord,
  address: string,
  state: SourceStateName | DestinationStateName,
): RecoveryAction[] {
  return state === "kept" && facts.copiesDisks ? [{ do: "drop-disk-copies", address }] : [];
}

/** Images of a machine that never ran here. One that is lost may have written to them: they stay. */
function imageActions({ facts }: OperationRecord, name: string): RecoveryAction[] {
  if (name !== "abandoned") return [];
  return (facts.images ?? []).map((image) => ({ do: "remove-image" as const, ...image }));
}

function discardActions(record: OperationRecord): RecoveryAction[] {
  const { kind, facts } = record;
  if (kind === "send") {
    const { vmProcess } = facts;
    return vmProcess === undefined ? [] : [{ do: "end-process", process: vmProcess, role: "the machine" }];
  }
  return [
    ...startedProcesses(record).map((each) => ({ do: "end-process" as const, ...each })),
    ...(facts.sockets ?? []).map((path) => ({ do: "remove-socket" as const, path })),
  ];
}
