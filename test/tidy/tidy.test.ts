import { expect, test } from "bun:test";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { deadExports, deadFiles } from "../support/dead-exports.ts";
import { functionLengths } from "../support/function-lengths.ts";
import { ROOT, type SourceFile, sourceFiles } from "../support/source-files.ts";

/** A function fits a screen. */
const MAX_FUNCTION_LINES = 60;
const MAX_FILE_LINES = 400;

const sources = await sourceFiles("src", "devices", "migrate", "bin");
const tests = await sourceFiles("test");
const everything = [...sources, ...tests];

/** What runs on a ring's thread, where no promise, timer or file API does anything (design.md, "Threads"). */
const DATA_PATH =
  /^(?:devices\/[^/]+\/device\.ts|src\/vring\/.*|src\/backend\/(?:ring-[^/]*|device-queue)\.ts)$/;
const BANNED_ON_DATA_PATH =
  /\bPromise\b|\basync\b|\bawait\b|\b(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b|\bBun\.(?:file|write|sleep)\b|\bnode:(?:fs|timers|stream)/;

/** "path:line: what is there" for every line of code that matches; strings and comments do not count. */
function hits(files: readonly SourceFile[], pattern: RegExp, part: "code" | "text" = "code"): string[] {
  return files.flatMap(({ path, [part]: body }) =>
    body.split("\n").flatMap((line, index) => {
      const found = pattern.exec(line)?.[0];
      return found === undefined ? [] : [`${path}:${index + 1}: ${found.trim()}`];
    }),
  );
}

test("files and functions are short", () => {
  const long = everything
    .map(({ path, text }) => ({ path, lineCount: text.split("\n").length - 1 }))
    .filter(({ lineCount }) => lineCount > MAX_FILE_LINES)
    .map(({ path, lineCount }) => `${path}: ${lineCount} lines`);
  expect(long).toEqual([]);
  const functions = sources.flatMap((file) =>
    functionLengths(file)
      .filter(({ lineCount }) => lineCount > MAX_FUNCTION_LINES)
      .map(({ line, lineCount }) => `${file.path}:${line}: ${lineCount} lines`),
  );
  expect(functions).toEqual([]);
});

test("file names are kebab-case", () => {
  const strange = everything
    .map(({ path }) => path)
    .filter((path) => !/^[a-z0-9-]+(?:\.test)?\.ts$/.test(path.split("/").at(-1) as string));
  expect(strange).toEqual([]);
});

test("only bin/ and test/ write to the console, and end the process", () => {
  const library = sources.filter(({ path }) => !path.startsWith("bin/"));
  expect(hits(library, /\bconsole\.|\bprocess\.(?:exit|stdout|stderr)\b/)).toEqual([]);
});

test("nothing was left to be done later", () => {
  const others = everything.filter(({ path }) => path !== "test/tidy/tidy.test.ts");
  expect(hits(others, /\b(?:TODO|FIXME|XXX|HACK)\b|not implemented/i, "text")).toEqual([]);
});

test("no default exports, no any, no switched-off type checks", () => {
  expect(hits(everything, /^export default\b/)).toEqual([]);
  expect(hits(everything, /(?::|\bas|<|\|)\s*any\b(?!\()|\bany\[\]/)).toEqual([]);
  const others = everything.filter(({ path }) => path !== "test/tidy/tidy.test.ts");
  expect(hits(others, /@ts-(?:ignore|nocheck|expect-error)/, "text")).toEqual([]);
});

test("the data path uses no promise, timer or file API", () => {
  const dataPath = sources.filter(({ path }) => DATA_PATH.test(path));
  expect(dataPath.length).toBeGreaterThan(5);
  expect(hits(dataPath, BANNED_ON_DATA_PATH)).toEqual([]);
  const imports = dataPath.flatMap(({ path, imports }) =>
    imports
      .filter(({ specifier }) => BANNED_ON_DATA_PATH.test(specifier))
      .map(({ specifier }) => `${path}: ${specifier}`),
  );
  expect(imports).toEqual([]);
});

test("every export has a user, or is public", () => {
  const publicPaths = new Set(
    Object.values(packageJson.exports).flatMap((path) => [
      ...new Bun.Glob(path.slice(2)).scanSync({ cwd: ROOT }),
    ]),
  );
  expect(deadExports(sources, everything, publicPaths)).toEqual([]);
  const entries = new Set([...publicPaths, packageJson.bin.vhu]);
  expect(deadFiles(sources, everything, entries)).toEqual([]);
});

test("package.json exports only what is there", async () => {
  for (const path of Object.values(packageJson.exports)) {
    const found = [...new Bun.Glob(path.slice(2)).scanSync({ cwd: ROOT })];
    expect(found, path).not.toEqual([]);
  }
  expect(await Bun.file(join(ROOT, packageJson.bin.vhu)).exists()).toBe(true);
});

test("the checks see what they are for", () => {
  const text = [
    "export function long(",
    "  one: number,",
    "): void {",
    ...Array.from({ length: 70 }, () => "  one += 1; // console.log"),
    "}",
    'const text = "console.log(1) TODO";',
  ].join("\n");
  const code = text.replace(/\/\/.*|".*"/g, "");
  const file: SourceFile = { path: "src/sys/x.ts", text, code, imports: [] };
  expect(functionLengths(file)).toEqual([{ line: 1, lineCount: 74 }]);
  expect(hits([file], /console/)).toEqual([]);
  expect(deadExports([file], [file], new Set())).toEqual(["src/sys/x.ts: long"]);
  expect(deadFiles([file], [file], new Set())).toEqual(["src/sys/x.ts"]);
});
