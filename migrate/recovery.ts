import {
  type Assessment,
  assessLoad,
  assessSave,
  type LookAtMachine,
  type OperationRecord,
} from "./operations/mod.ts";

/** What an interrupted operation has left, and how to go on. */
export function assessOperation(record: OperationRecord, look: LookAtMachine): Promise<Assessment> {
  return record.kind === "save" || record.kind === "send"
    ? assessSave(record, look)
    : assessLoad(record, look);
}
