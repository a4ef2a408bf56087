import { isRunning, type ProcessIdentity, processesWithVariable } from "../../src/sys/mod.ts";
import type { Assessment, LookAtMachine, RecoveryAction } from "./assessment.ts";
import type { OperationRecord } from "./operation-record.ts";

/** The environment variable by which whatever an operation starts is known, also what it had no time to write down. */
export const OPERATION_VARIABLE = "VHU_OPERATION";

/** A load that broke off. Nothing of it runs before the phase "resuming"; what it started is ended, and it can be done again. */
export async function assessLoad(record: OperationRecord, look: LookAtMachine): Promise<Assessment> {
  const { id, facts, phase } = record;
  const at = facts.runsAt ?? record.target;
  const found = await look(at);
  const isComplete = phase === "resuming" || phase === "leaving";
  if (isComplete && (found === "running" || (phase === "leaving" && found === "suspended"))) {
    const line = `${at} is loaded and ${found === "running" ? "runs" : "waits, as it should"}`;
    return { line: `${line}; vhu migrate recover ${id} closes the case`, actions: [], afterwards: line };
  }
  if (isComplete && found === "suspended") {
    return {
      line: `${at} is loaded and does not run yet: vhu migrate recover ${id} lets it run`,
      actions: [{ do: "resume-machine", address: at }],
      afterwards: `${at} runs`,
    };
  }
  const left = startedProcesses(record);
  const actions: RecoveryAction[] = [
    ...left.map((each) => ({ do: "end-process" as const, ...each })),
    ...(facts.sockets ?? []).map((path) => ({ do: "remove-socket" as const, path })),
  ];
  const afterwards = `nothing of it is left; vhu migrate load ${record.source} starts anew`;
  if (left.length > 0) {
    return {
      line: `the machine at ${at} is not loaded: vhu migrate recover ${id} ends the ${left.length} processes of it, then load again`,
      ...{ actions, afterwards },
    };
  }
  const line =
    found === "gone"
      ? "nothing of it is left"
      : `what waits at ${at} was not started by vhu and may be half loaded: start it anew`;
  return { line: `${line}; vhu migrate recover ${id} closes the case, then load again`, actions, afterwards };
}

/** What the operation started and still runs: by the log, and by what they have in their environment. */
export function startedProcesses({
  id,
  facts,
}: OperationRecord): { readonly process: ProcessIdentity; readonly role: string }[] {
  const noted = (facts.started ?? []).filter(isRunning);
  const found = processesWithVariable(OPERATION_VARIABLE, id);
  const others = found.filter(({ pid }) => !noted.some((each) => each.pid === pid));
  return [
    ...noted.map(({ role, ...process }) => ({ process, role })),
    ...others.map((process) => ({ process, role: process.executable ?? "a process of it" })),
  ];
}
