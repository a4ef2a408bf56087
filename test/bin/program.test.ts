import { expect, test } from "bun:test";
import { join, relative } from "node:path";
import { Command } from "commander";
import { catalogue } from "../../bin/catalogue.ts";
import packageJson from "../../package.json" with { type: "json" };
import { ROOT } from "../support/source-files.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

test("--version prints the version alone", async () => {
  expect(await runVhu(["--version"])).toEqual({ status: 0, stdout: `${packageJson.version}\n`, stderr: "" });
});

test("--help lists every command", async () => {
  const { status, stdout, stderr } = await runVhu(["--help"]);
  expect([status, stderr]).toEqual([0, ""]);
  for (const { words } of catalogue) expect(stdout).toContain(words.split(" ")[0] as string);
});

/** The commands that can run: `device run` has one for each type of device. */
async function leaves(): Promise<string[]> {
  const found: string[] = [];
  const walk = (command: Command, words: string): void => {
    if (command.commands.length === 0) found.push(words);
    for (const child of command.commands) walk(child, `${words} ${child.name()}`);
  };
  for (const entry of catalogue) {
    const parent = new Command();
    (await entry.load())(parent);
    const noun = entry.words.split(" ").slice(0, -1);
    for (const command of parent.commands) walk(command, [...noun, command.name()].join(" "));
  }
  return found;
}

test.each(await leaves())("%s --help has EXAMPLES and EXIT STATUS", async (words) => {
  const { status, stdout, stderr } = await runVhu([...words.split(" "), "--help"]);
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toContain(`Usage: vhu ${words}`);
  expect(stdout).toContain("\nEXAMPLES\n  ");
  expect(stdout).toContain("\nEXIT STATUS\n  0 ");
});

test.each(catalogue.map((entry) => [entry.words, entry] as const))(
  "the module of %s registers what the catalogue says",
  async (words, entry) => {
    const parent = new Command();
    (await entry.load())(parent);
    const [command, ...others] = parent.commands;
    expect(others).toEqual([]);
    expect(command?.name()).toBe(words.split(" ").at(-1) as string);
    expect(command?.summary() || command?.description()).toBe(entry.summary);
  },
);

test.each([
  [[], "a command is missing; see: vhu --help"],
  [["snapshot"], "a command is missing; see: vhu snapshot --help"],
  [["nonsense"], "unknown command 'nonsense'; see: vhu --help"],
  [["constructor"], "unknown command 'constructor'; see: vhu --help"],
  [["snapshot", "nonsense"], "unknown command 'nonsense'; see: vhu snapshot --help"],
  [["--nonsense"], "unknown option '--nonsense'; see: vhu --help"],
  [["device", "run", "blk", "--nonsense"], "unknown option '--nonsense'; see: vhu device run blk --help"],
  [["snapshot", "verify"], "missing required argument 'file'; see: vhu snapshot verify --help"],
  [["snapshot", "verify", "a", "b"], "too many arguments"],
  [["snapshot", "verify", "a", "--nonsense"], "unknown option '--nonsense'; see: vhu snapshot verify --help"],
  [["doctor", "--log-format", "xml"], "option '--log-format <format>' argument 'xml' is invalid"],
])("a wrong command line is exit 2: vhu %p", async (words, message) => {
  const { status, stdout, stderr } = await runVhu(words);
  expect(stderr).toContain(message);
  expect([status, stdout]).toEqual([2, ""]);
});

test("with --json, a wrong command line is told as JSON", async () => {
  const { status, stdout, stderr } = await runVhu(["snapshot", "inspect", "--json"]);
  expect([status, stdout]).toEqual([2, ""]);
  expect(JSON.parse(stderr)).toMatchObject({ type: "error", code: "USAGE", exitStatus: 2 });
});

test("the program itself loads commander and nothing heavy", async () => {
  const loaded = await staticImports(join(ROOT, "bin", "program.ts"));
  const outside = [...loaded].filter((module) => !module.startsWith(ROOT));
  expect(outside.sort()).toEqual(["commander", "node:fs"]);
  const inside = [...loaded].filter((module) => module.startsWith(ROOT)).map((path) => relative(ROOT, path));
  expect(inside).toContain("bin/catalogue.ts");
  expect(inside.filter((path) => !/^(?:bin\/|src\/errors\.ts|package\.json)/.test(path))).toEqual([]);
});

/** What importing a file imports, and so on; not what it would import later, and no types. */
async function staticImports(path: string, seen = new Set<string>()): Promise<Set<string>> {
  const code = await Bun.file(path).text();
  for (const { kind, path: specifier } of new Bun.Transpiler({ loader: "ts" }).scanImports(code)) {
    const module = specifier.startsWith(".") ? join(path, "..", specifier) : specifier;
    if (kind !== "import-statement" || seen.has(module)) continue;
    seen.add(module);
    if (module.endsWith(".ts")) await staticImports(module, seen);
  }
  return seen;
}

test("a reader that goes away ends it quietly, as SIGPIPE would", async () => {
  const line = `"$0" "$1" doctor --help`;
  const child = Bun.spawnSync(["bash", "-c", `(${line}; echo "status $?" >&2) | exec 0<&-`, ...PROGRAM]);
  expect(child.stderr.toString()).toBe("status 141\n");
});
