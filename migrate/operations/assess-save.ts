import { existsSync } from "node:fs";
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
  const overlays = overlaysLeft(record);
  const over = overlays.map(({ path }) => path).join(", ");
  if (over !== "" && found === "gone") return assessGoneOver(record, over);
  const takeBack: RecoveryAction[] =
    over === "" ? [] : [{ do: "take-back-overlays", address: source, overlays }];
  const ofDisks = over === "" ? "" : `, its disks over ${over}`;
  const back = over === "" ? "" : ", and takes the overlays back into the disks' files";
  const to = facts.earlierRunState ?? "running";
  if (found === "held" || (found === "suspended" && to === "running")) {
    const how = found === "held" ? "stands still in the middle of the save" : "is suspended";
    const [was, does] = to === "running" ? ["was running", "lets it go on"] : ["was paused", "ends that"];
    return {
      line: `${source} ${how} and ${was} before${ofDisks}; ${file}; vhu migrate recover ${record.id} ${does}${back}`,
      actions: [{ do: "resume-machine", address: source, to }, ...takeBack, ...leftovers],
      afterwards: `${source} ${to === "running" ? "goes on" : "is paused, as it was before"}; ${file}`,
    };
  }
  const machine = machineState(source, found);
  return {
    line: `${machine}${ofDisks}; ${file}; vhu migrate recover ${record.id} removes what is left${back}, then save again if you need to`,
    actions: [...takeBack, ...leftovers],
    afterwards: `${machine}; ${file}`,
  };
}

/** What it had written since is in the overlays only, and nobody but the user knows with which files it was started again. */
function assessGoneOver(record: OperationRecord, over: string): Assessment {
  const line = `nobody is at ${record.source} any more; what it wrote last is in ${over}: start it with these as its disks, or qemu-img commit each first`;
  return {
    line: `${line}; vhu migrate recover ${record.id} closes the case`,
    actions: leftoversOf(record),
    afterwards: `${line}; ${fileState(record)}`,
  };
}

function overlaysLeft({ facts }: OperationRecord): NonNullable<OperationRecord["facts"]["overlays"]> {
  // Those of a snapshot that is whole belong to it.
  if (facts.root !== undefined) return [];
  return (facts.overlays ?? []).filter(({ path }) => existsSync(path));
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
    case "held":
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
