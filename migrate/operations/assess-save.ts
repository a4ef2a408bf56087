import { isRunning } from "../../src/sys/mod.ts";
import type { Assessment, FoundState, LookAtMachine, RecoveryAction } from "./assessment.ts";
import type { OperationRecord } from "./operation-record.ts";

/**
 * A save that broke off. Its machine goes on by itself when the saving vhu dies, but for one moment: with `--stop`, once the
 * snapshot is whole, between the machine's giving itself up and its end.
 */
export async function assessSave(record: OperationRecord, look: LookAtMachine): Promise<Assessment> {
  const { source, facts } = record;
  const found = await look(source);
  const leftovers = leftoversOf(record);
  const file = fileState(record);
  if (facts.root !== undefined && record.phase === "ending") return assessEnding(record, found);
  if (found === "suspended" && facts.earlierRunState !== "suspended") {
    return {
      line: `${source} is suspended and was running before; ${file}; vhu migrate recover ${record.id} lets it go on`,
      actions: [{ do: "resume-machine", address: source }, ...leftovers],
      afterwards: `${source} goes on; ${file}`,
    };
  }
  const machine = machineState(source, found);
  return {
    line: `${machine}; ${file}; vhu migrate recover ${record.id} removes what is left, then save again if you need to`,
    actions: leftovers,
    afterwards: `${machine}; ${file}`,
  };
}

function assessEnding({ id, source, target, facts }: OperationRecord, found: FoundState): Assessment {
  if (found === "running") {
    const line = `${target} is whole, and ${source} has gone on since: the newer of the two is ${source}`;
    return { line: `${line}; vhu migrate recover ${id} closes the case`, actions: [], afterwards: line };
  }
  const { vmProcess } = facts;
  if (found === "gone" || vmProcess === undefined || !isRunning(vmProcess)) {
    const line = `${target} is whole, and ${source} has ended, as it should`;
    return { line: `${line}; vhu migrate recover ${id} closes the case`, actions: [], afterwards: line };
  }
  return {
    line: `${target} is whole and ${source} has given the machine up: vhu migrate recover ${id} ends it, then load ${target}`,
    actions: [{ do: "end-process", process: vmProcess, role: "the machine" }],
    afterwards: `${target} is whole, and ${source} has ended`,
  };
}

function fileState({ target, facts }: OperationRecord): string {
  if (target === "-") return "what went to stdout is not to be used";
  return facts.root === undefined ? `${target} was not written` : `${target} is whole`;
}

function machineState(source: string, found: FoundState): string {
  switch (found) {
    case "running":
      return `${source} runs`;
    case "suspended":
      return `${source} is suspended, as it was before`;
    case "gone":
      return `nobody is at ${source} any more`;
    case "unknown":
      return `${source} does not answer, but goes on by itself`;
  }
}

function leftoversOf({ target }: OperationRecord): RecoveryAction[] {
  return target === "-" ? [] : [{ do: "remove-leftovers", path: target }];
}
