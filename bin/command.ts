import { constants } from "node:os";
import { type Command, Option } from "commander";
import { CancelledError } from "../src/errors.ts";
import { Output } from "./output/output.ts";

/** What a command's help page says beyond its options. */
export interface CommandPage {
  /** The verb with its arguments, as commander reads them, e.g. "inspect <file>". */
  readonly usage: string;
  /** The first line is the summary. */
  readonly description: string;
  /** Command lines with what they do. */
  readonly examples: readonly (readonly [commandLine: string, meaning: string])[];
  /** Beyond 0, 1, 2 and 128+signal, which every command has. A text for one of these replaces the usual one. */
  readonly exitStatus?: Readonly<Record<number, string>>;
}

/** What a running command gets. */
export interface CommandContext {
  readonly output: Output;
  /**
   * Aborted by SIGINT, SIGTERM or SIGHUP, its reason then a CancelledError. The signals are caught from the first use
   * on: a command that never looks at it ends by them at once, as any program does.
   */
  readonly signal: AbortSignal;
}

/** Adds a command with the options that all have, and a help page with EXAMPLES and EXIT STATUS. */
export function addCommand(parent: Command, page: CommandPage): Command {
  const [summary = ""] = page.description.split("\n");
  return parent
    .command(page.usage)
    .summary(summary)
    .description(paragraphs(page.description))
    .helpOption("-h, --help", "show this help")
    .option("--json", "print JSON: one document, or a line for each event")
    .option("--debug", "log more, and show where an error came from")
    .addOption(
      new Option("--log-format <format>", "how to log on stderr").choices(["text", "json"]).default("text"),
    )
    .addHelpText("after", () => helpSections(page));
}

/**
 * Makes a commander action of `run`, which gets the context, then the arguments, then the options. It returns the exit
 * status, 0 if nothing; a thrown VhuError has its own.
 */
export function action<Args extends unknown[]>(
  run: (context: CommandContext, ...args: Args) => Promise<number | undefined> | number | undefined,
): (...args: unknown[]) => Promise<void> {
  return async (...args) => {
    const command = args.at(-1) as Command & { exitStatus?: number };
    const options = command.opts<{ json?: boolean; debug?: boolean; logFormat?: "text" | "json" }>();
    const output = new Output({
      json: options.json ?? false,
      debug: options.debug ?? false,
      logFormat: options.logFormat ?? "text",
    });
    using interruption = new Interruption();
    const context: CommandContext = {
      output,
      get signal() {
        return interruption.signal;
      },
    };
    const status = await run(context, ...(args.slice(0, -1) as Args));
    command.exitStatus = status ?? interruption.exitStatus ?? 0;
  };
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** The signals as an AbortSignal. The second one ends the process at once. */
class Interruption implements Disposable {
  #controller: AbortController | undefined;
  exitStatus: number | undefined;

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      for (const name of SIGNALS) process.on(name, this.#onSignal);
    }
    return this.#controller.signal;
  }

  readonly #onSignal = (name: NodeJS.Signals): void => {
    const number = constants.signals[name];
    if (this.exitStatus !== undefined) process.exit(128 + number);
    this.exitStatus = 128 + number;
    this.#controller?.abort(new CancelledError(`interrupted by ${name}`, number));
  };

  [Symbol.dispose](): void {
    for (const name of SIGNALS) process.off(name, this.#onSignal);
  }
}

/** commander wraps lines itself, so those of the source are joined. */
function paragraphs(text: string): string {
  return text.replace(/(\S)\n(?=\S)/g, "$1 ");
}

function helpSections(page: CommandPage): string {
  const examples = page.examples.map(([line, meaning]) => `  ${line}\n      ${meaning}`);
  const statuses: Record<number, string> = {
    0: "done",
    1: "it failed: the message says why",
    2: "the command line is wrong",
    ...page.exitStatus,
  };
  const rows = Object.entries(statuses).map(([status, meaning]) => `  ${status.padEnd(5)} ${meaning}`);
  rows.push("  128+N interrupted by signal N (130 for Ctrl-C)");
  return `\nEXAMPLES\n${examples.join("\n")}\n\nEXIT STATUS\n${rows.join("\n")}`;
}
