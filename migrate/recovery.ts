import { StateError, UsageError } from "../src/errors.ts";
import { hostIdentity } from "../src/sys/mod.ts";
import { assessHandover, type HandoverWord } from "./live/mod.ts";
import {
  type Assessment,
  assessLoad,
  assessSave,
  type LookAtMachine,
  type OperationRecord,
} from "./operations/mod.ts";

/**
 * What an interrupted operation has left, and how to go on.
 * @throws UsageError for a word about a move that is none; StateError for an operation of another container
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

/**
 * From another pid namespace all its processes look as if they had ended: a machine that runs there would be taken for lost, and
 * started a second time elsewhere. After a boot they have ended, wherever they were.
 */
function requireSeen({ id, host }: OperationRecord): void {
  const here = hostIdentity();
  if (host.bootId !== here.bootId || host.pidNamespace === here.pidNamespace) return;
  throw new StateError(
    `${id} is of another container, whose processes are not seen from here: run vhu migrate recover ${id} there`,
  );
}
