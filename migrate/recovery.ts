import { UsageError } from "../src/errors.ts";
import { assessHandover, type HandoverWord } from "./live/mod.ts";
import {
  type Assessment,
  assessLoad,
  assessSave,
  type LookAtMachine,
  type OperationRecord,
  requireSeen,
} from "./operations/mod.ts";

/**
 * What an interrupted operation has left, and how to go on.
 * @throws UsageError for a word about a move that is none; StateError for an operation of another container or host
 */
export async function assessOperation(
  record: OperationRecord,
  look: LookAtMachine,
  word: HandoverWord = {},
): Promise<Assessment> {
  requireSeen(record);
  if (record.kind === "send" || record.kind === "receive") return await assessHandover(record, look, word);
  if (word.other !== undefined || word.abandon) {
    throw new UsageError(`${record.id} is no move between hosts: --other and --abandon are for those`);
  }
  return record.kind === "save" ? await assessSave(record, look) : await assessLoad(record, look);
}
