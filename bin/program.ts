import { Command, CommanderError } from "commander";
import { version } from "../package.json" with { type: "json" };
import { UsageError } from "../src/errors.ts";
import { type CatalogueEntry, catalogue, nouns } from "./catalogue.ts";
import { reportError } from "./output/report-error.ts";
import { writeFully } from "./output/write-fully.ts";

const STDOUT = 1;
const STDERR = 2;

/**
 * Runs the command line and returns its exit status. Never throws.
 *
 * @param commands All of vhu's, unless a test tells others.
 */
export async function main(words: readonly string[], commands = catalogue): Promise<number> {
  const style = { json: words.includes("--json"), debug: words.includes("--debug") };
  const entry = commands.find((candidate) => isAsked(candidate, words));
  let status = 0;
  let program: Command | undefined;
  try {
    program = await buildProgram(commands, entry, (result) => {
      status = result;
    });
    await program.parseAsync([...words], { from: "user" });
    return status;
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(error, style);
    if (error.exitCode === 0) return 0;
    return reportError(usageErrorOf(error, commandWords(program!, words)), style);
  }
}

/** As much of the command line as names a command. */
function commandWords(program: Command, words: readonly string[]): string {
  const names: string[] = [];
  for (let command: Command | undefined = program; command !== undefined; ) {
    const { commands }: Command = command;
    command = words.flatMap((word) => commands.filter((each) => each.name() === word))[0];
    if (command !== undefined) names.push(command.name());
  }
  return names.join(" ");
}

/** `vhu snapshot inspect …`, `vhu snapshot help inspect` and `vhu help doctor` ask for a command; options may stand between. */
function isAsked(entry: CatalogueEntry, words: readonly string[]): boolean {
  const plain = words.filter((word) => !word.startsWith("-") && word !== "help");
  return entry.words.split(" ").every((word, index) => plain[index] === word);
}

async function buildProgram(
  commands: readonly CatalogueEntry[],
  asked: CatalogueEntry | undefined,
  onResult: (status: number) => void,
): Promise<Command> {
  const program = new Command("vhu")
    .description(
      "Checkpoint, inspect and live-migrate virtual machines together with their vhost-user devices.",
    )
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => writeFully(STDOUT, text),
      // The help that commander prints for a missing verb; its error lines are ours (usageErrorOf).
      writeErr: (text) => writeFully(STDERR, text),
      outputError: () => {},
    })
    .addHelpText("after", "\nvhu NOUN --help lists the verbs of a noun, vhu NOUN VERB --help explains one.");
  program.hook("postAction", (_, action) => {
    const result = (action as Command & { exitStatus?: number }).exitStatus;
    if (result !== undefined) onResult(result);
  });
  const parents = new Map<string, Command>();
  for (const entry of commands) {
    const [first, verb] = entry.words.split(" ") as [string, string?];
    const parent = verb === undefined ? program : nounOf(program, parents, first);
    if (entry === asked) (await entry.load())(parent);
    else parent.command(verb ?? first).description(entry.summary);
  }
  return program;
}

function nounOf(program: Command, parents: Map<string, Command>, noun: string): Command {
  const known = parents.get(noun);
  if (known !== undefined) return known;
  const created = program.command(noun).description(nouns[noun] ?? "");
  parents.set(noun, created);
  return created;
}

/** "error: missing required argument 'file'" becomes our kind of sentence, with the next step. */
function usageErrorOf(error: CommanderError, words: string): UsageError {
  const help = `see: vhu ${words === "" ? "" : `${words} `}--help`;
  if (error.code === "commander.help") return new UsageError(`a command is missing; ${help}`);
  return new UsageError(`${error.message.replace(/^error: /, "").replace(/\.$/, "")}; ${help}`);
}
