import type { Command } from "commander";
import {
  type Assessment,
  assessOperation,
  currentOperation,
  describeAction,
  type OperationRecord,
  type OperationState,
  OperationsLog,
  placeOf,
} from "../../migrate/mod.ts";
import { VhuError } from "../../src/errors.ts";
import { action, addCommand } from "../command.ts";
import { lookAtMachine } from "../look-at-machine.ts";
import { printable } from "../output/printable.ts";

interface OperationReport {
  readonly record: OperationRecord;
  readonly state: OperationState;
  /** One line: what it does, how it ended, or how to go on. */
  readonly line: string;
  readonly assessment?: Assessment | undefined;
}

export function registerMigrateStatus(parent: Command): void {
  addCommand(parent, {
    usage: "status [id]",
    description: `say what operations are under way, and how to go on with one that was interrupted

An operation is a save or a load. Without ID: those that run, and those whose vhu has died before the end. With ID (its first
letters will do): that one, also when it has ended. For an interrupted one the line says what runs now and what to do; nothing
is touched.`,
    examples: [
      ["vhu migrate status", "is something under way, or broken off?"],
      ["vhu migrate status save-1f3a9c02 --json", "all that the log has about one"],
    ],
    exitStatus: { 1: "an operation was interrupted: its line says how to go on" },
  }).action(
    action(async ({ output }, id: string | undefined) => {
      const log = new OperationsLog();
      const records = id === undefined ? log.list().filter(({ outcome }) => !outcome) : [log.find(id)];
      const reports = await Promise.all(records.map((record) => reportOf(log, record)));
      if (output.json) output.document({ operations: reports.map(documentOf) });
      else if (reports.length === 0) output.line("nothing is under way");
      else
        output.lines(reports.map(({ record, state, line }) => printable(`${record.id} ${state}: ${line}`)));
      return reports.some(({ state }) => state === "interrupted") ? 1 : 0;
    }),
  );
}

async function reportOf(log: OperationsLog, listed: OperationRecord): Promise<OperationReport> {
  const { record, state } = currentOperation(log, listed);
  if (state === "finished") {
    const { result, message } = record.outcome!;
    return { record, state, line: `${result}: ${message}` };
  }
  if (state === "running" || state === "elsewhere") {
    const progress = log.progressOf(record.id);
    const percent =
      progress === undefined || progress.total === 0 ? "" : `, ${percentOf(progress.done, progress.total)} %`;
    const line = `${record.source} -> ${record.target}, ${record.phase}${percent}, ${whereOf(record)}`;
    return { record, state, line: state === "running" ? line : `${line}: only there it can be judged` };
  }
  try {
    const assessment = await assessOperation(record, lookAtMachine);
    return { record, state, line: assessment.line, assessment };
  } catch (error) {
    // The other operations have their lines all the same.
    if (error instanceof VhuError) return { record, state, line: `it cannot be judged: ${error.message}` };
    throw error;
  }
}

function documentOf({ record, state, line, assessment }: OperationReport) {
  const actions = assessment?.actions.map(describeAction);
  return { ...record, state, line, ...(actions === undefined ? {} : { actions }) };
}

function whereOf({ owner, host }: OperationRecord): string {
  const place = placeOf(host);
  if (place === "another host") return `process ${owner.pid} of the host ${host.hostName ?? host.machineId}`;
  return `process ${owner.pid}${place === "here" ? "" : ` of ${place}`}`;
}

function percentOf(done: number, total: number): number {
  return Math.floor((done / total) * 100);
}
