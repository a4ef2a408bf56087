import type { Command } from "commander";
import { currentOperation, OperationsLog } from "../../migrate/mod.ts";
import { action, addCommand } from "../command.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";

export function registerMigrateList(parent: Command): void {
  addCommand(parent, {
    usage: "list",
    description: `list the operations of this user on this host

The newest first; of those that have ended the last hundred. \`vhu migrate status\` tells more about one.`,
    examples: [["vhu migrate list", "what was moved, when, and how did it end?"]],
  }).action(
    action(({ output }) => {
      const log = new OperationsLog();
      const operations = log.list().map((listed) => {
        const { record, state } = currentOperation(log, listed);
        return { ...record, state };
      });
      if (output.json) output.document({ operations });
      else if (operations.length === 0) output.line("no operations yet");
      else {
        const rows = operations.map(({ id, state, outcome, startedAt, source, target }) =>
          [id, outcome?.result ?? state, startedAt.slice(0, 19), source, target].map(printable),
        );
        output.lines(formatTable(rows, ["id", "state", "begun (UTC)", "from", "to"]));
      }
    }),
  );
}
