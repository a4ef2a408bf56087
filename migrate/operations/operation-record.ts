import type { HostIdentity, ProcessIdentity } from "../../src/sys/mod.ts";
import type { OperationEntry, OperationFacts, OperationKind, OperationOutcome } from "./entry.ts";

/** What the log knows of one operation. */
export interface OperationRecord {
  readonly id: string;
  readonly kind: OperationKind;
  readonly source: string;
  readonly target: string;
  /** The vhu that does it, or the one that took it up last. */
  readonly owner: ProcessIdentity;
  readonly host: HostIdentity;
  /** "begun" before the first phase. */
  readonly phase: string;
  readonly phases: readonly { readonly phase: string; readonly at: string }[];
  readonly facts: OperationFacts;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly updatedAt: string;
  readonly outcome?: OperationOutcome | undefined;
}

/** The record that the entries add up to; undefined where its beginning is missing. */
export function recordOf(id: string, entries: readonly OperationEntry[]): OperationRecord | undefined {
  const [begin, ...later] = entries;
  if (begin?.entry !== "begin") return undefined;
  const { kind, source, target, owner, host, at, facts } = begin;
  const first: OperationRecord = {
    ...{ id, kind, source, target, owner, host, facts },
    ...{ phase: "begun", phases: [], startedAt: at, updatedAt: at },
  };
  return later.reduce(withEntry, first);
}

/** The record after one more entry. */
export function withEntry(record: OperationRecord, entry: OperationEntry): OperationRecord {
  const updatedAt = entry.at;
  switch (entry.entry) {
    case "begin":
      return record;
    case "phase": {
      const phases = [...record.phases, { phase: entry.phase, at: entry.at }];
      return { ...record, updatedAt, phase: entry.phase, phases, facts: added(record.facts, entry.facts) };
    }
    case "taken-up":
      return { ...record, updatedAt, owner: entry.owner, host: entry.host };
    case "end":
      return { ...record, updatedAt, outcome: entry.outcome };
  }
}

const LISTS = ["started", "sockets", "overlays", "images"] as const;

function added(earlier: OperationFacts, later: OperationFacts): OperationFacts {
  const lists = LISTS.flatMap((name) => {
    const all = [...(earlier[name] ?? []), ...(later[name] ?? [])];
    return all.length === 0 ? [] : [[name, all] as const];
  });
  return { ...earlier, ...later, ...Object.fromEntries(lists) };
}
