import type { Command } from "commander";
import {
  assessOperation,
  currentOperation,
  describeAction,
  type HandoverWord,
  Operation,
  type OperationRecord,
  OperationsLog,
  recoverOperation,
  requireSeen,
} from "../../migrate/mod.ts";
import { StateError, UsageError } from "../../src/errors.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { dropDiskCopies, lookAtMachine, resumeMachine, takeBackOverlays } from "../look-at-machine.ts";
import { printable } from "../output/printable.ts";

interface RecoverOptions extends HandoverWord {
  readonly dryRun?: boolean;
}

export function registerMigrateRecover(parent: Command): void {
  addCommand(parent, {
    usage: "recover [id]",
    description: `clear up after an operation that was interrupted

Does what \`vhu migrate status\` says: ends processes that the operation started and that nobody needs, removes temporary files,
lets a machine go on that was left suspended. A process is ended only if it is the very one that was started: pid, start time
and program are compared. Without ID: every interrupted operation. One that runs is left alone.

After a move between hosts, what is right may depend on the other host. Ask \`vhu migrate status\` there: the first word of its
line is its state, and --other tells it here. --other dead warrants that the other host will never run the machine.`,
    examples: [
      ["vhu migrate recover --dry-run", "what would be done?"],
      ["vhu migrate recover load-1f3a9c02", "clear up after that load"],
      ["vhu migrate recover send-1f3a9c02 --other abandoned", "the destination dropped it: it goes on here"],
    ],
    exitStatus: { 1: "it could not be cleared up, or runs still: the message says why" },
  })
    .option("--other <state>", "what vhu migrate status says on the other host of a move, or: dead")
    .option("--abandon", "on the host that received: drop a machine that waits for the source's word")
    .option("--dry-run", "say what would be done, and do nothing")
    .action(
      action(async (context, id: string | undefined, options: RecoverOptions) => {
        const log = new OperationsLog();
        if (id === undefined && (options.other !== undefined || options.abandon)) {
          throw new UsageError("--other and --abandon are about one operation: give its ID");
        }
        const records = id === undefined ? log.list() : [requireInterrupted(log, log.find(id))];
        const interrupted = records
          .map((record) => currentOperation(log, record))
          .filter(({ state }) => state === "interrupted");
        if (interrupted.length === 0)
          context.output.summary({ operations: [] }, () => ["nothing to recover"]);
        for (const { record } of interrupted) await recover(context, log, record, options);
        return undefined;
      }),
    );
}

function requireInterrupted(log: OperationsLog, found: OperationRecord): OperationRecord {
  const { record, state } = currentOperation(log, found);
  if (state === "running") {
    throw new StateError(`${record.id} is under way: vhu migrate cancel ${record.id} stops it`);
  }
  if (state === "elsewhere") requireSeen(record);
  if (state === "finished") throw new StateError(`${record.id} has ended: ${record.outcome?.message}`);
  return record;
}

async function recover(
  { output }: CommandContext,
  log: OperationsLog,
  { id, ...known }: OperationRecord,
  { dryRun, ...word }: RecoverOptions,
): Promise<void> {
  if (dryRun) {
    const { line, actions } = await assessOperation({ id, ...known }, lookAtMachine, word);
    const texts = actions.map(describeAction);
    output.summary({ id, line, actions: texts }, () =>
      [id, ...texts.map((text) => `  ${text}`)].map(printable),
    );
    return;
  }
  using operation = Operation.takeUp(log, id);
  const assessment = await assessOperation(operation.record, lookAtMachine, word);
  await recoverOperation(operation, assessment, {
    resumeMachine,
    takeBackOverlays,
    dropDiskCopies,
    onAction: (text) => output.status(printable(`${id}: ${text}`)),
  });
  const { afterwards } = assessment;
  output.summary({ id, message: afterwards }, () => [printable(`${id}: ${afterwards}`)]);
}
