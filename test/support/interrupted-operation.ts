import { readFileSync, writeFileSync } from "node:fs";
import { Operation, type OperationStart, type OperationsLog } from "../../migrate/mod.ts";

/** An operation as a vhu leaves it that is killed after `work`. Returns its id. */
export function interruptedOperation(
  log: OperationsLog,
  start: OperationStart,
  work: (operation: Operation) => void,
): string {
  using operation = Operation.begin(log, start);
  work(operation);
  const path = log.pathOf(operation.id);
  const [first = "", ...others] = readFileSync(path, "utf8").split("\n");
  const begin = JSON.parse(first.slice(first.indexOf("{")));
  // This process lives: the log shall name one that does not.
  begin.owner.startTicks = "1";
  const json = JSON.stringify(begin);
  const checksum = Bun.hash.xxHash3(json).toString(16).padStart(16, "0");
  writeFileSync(path, [`${checksum} ${json}`, ...others].join("\n"));
  return operation.id;
}
