import { expect, test } from "bun:test";
import { join } from "node:path";

const SCRIPT = [process.execPath, join(import.meta.dirname, "ending-commands.ts")];

function run(...words: string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...SCRIPT, ...words]);
  return { status: exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

/** Starts a command, sends it signals, each one once it has written the text before, and waits for its end. */
async function interrupt(
  words: readonly string[],
  ...steps: readonly (readonly [text: string, signal: NodeJS.Signals])[]
) {
  const child = Bun.spawn([...SCRIPT, ...words], { stdout: "ignore", stderr: "pipe" });
  let stderr = "";
  const left = [...steps];
  for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
    stderr += chunk;
    if (left[0] !== undefined && stderr.includes(left[0][0]))
      child.kill((left.shift() as (typeof left)[0])[1]);
  }
  await child.exited;
  return { status: child.exitCode, signal: child.signalCode, stderr };
}

test.each([
  ["usage", 2, "vhu: wrong words"],
  ["format", 3, "vhu: bad bytes (header, offset 7)"],
  ["compatibility", 4, "vhu: does not fit"],
  ["peer", 5, "vhu: gone\n  because: it hung up"],
  ["state", 1, "vhu: not now"],
  ["syscall", 1, "vhu: open failed: ENOSPC (/full)\n  the disk is full"],
  ["bug", 1, "vhu: x is not a function\n  this is a bug in vhu"],
])("a %s error ends with %d and says what to do", (name, status, message) => {
  const ran = run("throw", name);
  expect(ran).toMatchObject({ status, stdout: "" });
  expect(ran.stderr).toStartWith(message);
  expect(ran.stderr).not.toContain("    at ");
  expect(run("throw", name, "--debug").stderr).toContain("    at ");
  expect(JSON.parse(run("throw", name, "--json").stderr)).toMatchObject({
    type: "error",
    exitStatus: status,
  });
});

test("a command's own status is the exit status", () => {
  expect(run("answer", "6")).toEqual({ status: 6, stdout: "", stderr: "working\nthe answer is 6\n" });
});

test("with --json there are JSON lines, on stderr once stdout belongs to the data", () => {
  const { status, stdout, stderr } = run("answer", "0", "--json");
  expect(status).toBe(0);
  expect(
    stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line)),
  ).toEqual([
    { type: "status", message: "working", step: 1 },
    { type: "status", message: "copy", doneBytes: 512, totalBytes: 1024 },
  ]);
  expect(JSON.parse(stderr)).toEqual({ type: "summary", answer: 0 });
});

test.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const)(
  "%s aborts the signal: %d, whether the command throws its reason or returns",
  async (signal, status) => {
    const thrown = await interrupt(["wait", "throws"], ["ready", signal]);
    expect(thrown).toMatchObject({ status, signal: null });
    expect(thrown.stderr).toContain(`vhu: interrupted by ${signal}`);
    expect(await interrupt(["wait", "returns"], ["ready", signal])).toMatchObject({ status, signal: null });
  },
);

test("a command may say that a signal is its ordinary end", async () => {
  expect(await interrupt(["wait", "ends-well"], ["ready", "SIGTERM"])).toMatchObject({
    status: 0,
    signal: null,
  });
});

test("the second signal ends a command that does not", async () => {
  const ended = await interrupt(["wait", "stubborn"], ["ready", "SIGTERM"], ["noticed", "SIGINT"]);
  expect(ended).toMatchObject({ status: 130, signal: null });
});

test("a command that never looks at the signal ends by it", async () => {
  expect(await interrupt(["deaf"], ["ready", "SIGINT"])).toMatchObject({ signal: "SIGINT" });
});

test("logs are lines of JSON where that is asked for", async () => {
  const { stderr } = await interrupt(["wait", "ends-well", "--log-format", "json"], ["ready", "SIGTERM"]);
  expect(JSON.parse(stderr)).toMatchObject({
    type: "log",
    level: "info",
    message: "ready",
    how: "ends-well",
  });
});
