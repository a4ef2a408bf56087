import type { Command } from "commander";
import { cancelOperation, OperationsLog } from "../../migrate/mod.ts";
import { StateError } from "../../src/errors.ts";
import { action, addCommand } from "../command.ts";
import { printable } from "../output/printable.ts";
import { wholeNumber } from "../whole-number.ts";

const DEFAULT_TIMEOUT_S = 60;

export function registerMigrateCancel(parent: Command): void {
  addCommand(parent, {
    usage: "cancel <id>",
    description: `stop an operation that is under way

As Ctrl-C at its vhu does. Waits until it has stopped: the machine that was being saved goes on, no half-written file is under its final name, and what
was being loaded is gone.`,
    examples: [["vhu migrate cancel save-1f3a9c02", "stop that save; the machine goes on"]],
    exitStatus: {
      1: "it does not run, or was at its end already: the message says how it ended",
      5: "it has not stopped in time",
    },
  })
    .option("--timeout <seconds>", "how long to wait for it", wholeNumber(1), DEFAULT_TIMEOUT_S)
    .action(
      action(async ({ output, signal }, id: string, { timeout }: { timeout: number }) => {
        const log = new OperationsLog();
        const { record, state } = await cancelOperation(log, log.find(id), {
          timeoutMs: timeout * 1000,
          signal,
        });
        const { outcome } = record;
        if (outcome === undefined) {
          throw new StateError(`${record.id} is ${state}: vhu migrate recover ${record.id}`);
        }
        if (outcome.result === "done")
          throw new StateError(`${record.id} was done before it could be stopped`);
        output.summary({ id: record.id, outcome }, () => [printable(`${record.id} has stopped`)]);
        return undefined;
      }),
    );
}
