import { expect, test } from "bun:test";
import { type Import, type SourceFile, sourceFiles } from "../support/source-files.ts";

/** The house of design.md: a folder imports only from the ones above it. */
const HOUSE = [
  "src",
  "src/sys",
  "src/wire",
  "src/connection",
  "src/memory",
  "src/vring",
  "src/state",
  "src/backend",
  "src/frontend",
  "devices",
  "migrate",
  "bin",
];
/** What stands above all folders, and may be imported by its own name. */
const GROUND = ["src/errors.ts", "src/limits.ts", "src/logger.ts"];
/** The root export gathers the folders below src. */
const ROOT_EXPORT = "src/mod.ts";
/** Pure folders: messages, rings and states do no I/O of their own. */
const PURE = ["src/wire"];

const files = await sourceFiles("src", "devices", "migrate", "bin");

/** The folder of the house that a file lives in. */
function floorOf(path: string): string {
  const [first = "", second = ""] = path.split("/");
  return first === "src" && second !== path.split("/").at(-1) ? `src/${second}` : first;
}

/** Floors that are made of folders of their own. */
const SPLIT_FLOORS = ["devices", "migrate"];

/** The folder whose mod.ts is its public face: a floor, or a folder of devices/ or migrate/; a file there stands alone. */
function unitOf(path: string): string {
  const floor = floorOf(path);
  const [first, second] = path.split("/");
  return SPLIT_FLOORS.includes(floor) ? `${first}/${second}` : floor;
}

function faultOf(file: SourceFile, target: string): string | undefined {
  if (GROUND.includes(target)) return undefined;
  const [from, to] = [floorOf(file.path), floorOf(target)];
  if (target === "package.json") return from === "bin" ? undefined : "only bin/ reads package.json";
  if (!HOUSE.includes(to)) return `${to} is no folder of the house`;
  if (file.path === ROOT_EXPORT) return target.endsWith("/mod.ts") ? undefined : "not through mod.ts";
  if (target === ROOT_EXPORT) return "src/mod.ts is for users of the package";
  if (HOUSE.indexOf(to) > HOUSE.indexOf(from)) return `${from} stands above ${to}`;
  if (unitOf(file.path) === unitOf(target)) {
    return target.endsWith("/mod.ts") ? "a folder imports its own files directly" : undefined;
  }
  return target.endsWith("/mod.ts") || unitOf(target) === target
    ? undefined
    : "from outside, only mod.ts is public";
}

function targetsOf(file: SourceFile): (Import & { readonly target: string })[] {
  return file.imports.flatMap((entry) =>
    entry.target === undefined ? [] : [{ ...entry, target: entry.target }],
  );
}

test("every folder of the sources stands in the house", () => {
  const strangers = files.map(({ path }) => floorOf(path)).filter((floor) => !HOUSE.includes(floor));
  expect(strangers).toEqual([]);
});

test("a folder imports only from the ones above it, and only what they make public", () => {
  const faults = files.flatMap((file) =>
    targetsOf(file).flatMap(({ target }) => {
      const fault = faultOf(file, target);
      return fault === undefined ? [] : [`${file.path} imports ${target}: ${fault}`];
    }),
  );
  expect(faults).toEqual([]);
});

test("pure folders do no I/O", () => {
  const faults = files
    .filter(({ path }) => PURE.includes(floorOf(path)))
    .flatMap(({ path, imports }) =>
      imports
        .filter(({ specifier, target = "" }) => !specifier.startsWith(".") || target.startsWith("src/sys/"))
        .filter(({ specifier }) => specifier !== "node:assert/strict")
        .map(({ specifier }) => `${path} imports ${specifier}`),
    );
  expect(faults).toEqual([]);
});

test("folders do not import each other in a circle", () => {
  const edges = new Map<string, Set<string>>();
  for (const file of files) {
    for (const { target } of targetsOf(file)) {
      const [from, to] = [unitOf(file.path), unitOf(target)];
      if (from !== to && to !== "src") edges.set(from, (edges.get(from) ?? new Set()).add(to));
    }
  }
  expect(circleIn(edges)).toEqual([]);
});

function circleIn(edges: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const done = new Set<string>();
  const walk = (unit: string, way: readonly string[]): string[] => {
    if (way.includes(unit)) return [...way.slice(way.indexOf(unit)), unit];
    if (done.has(unit)) return [];
    for (const next of edges.get(unit) ?? []) {
      const circle = walk(next, [...way, unit]);
      if (circle.length > 0) return circle;
    }
    done.add(unit);
    return [];
  };
  for (const unit of edges.keys()) {
    const circle = walk(unit, []);
    if (circle.length > 0) return circle;
  }
  return [];
}

test("the reader of imports sees every form", () => {
  const self = files.find(({ path }) => path === "bin/doctor/kernel-checks.ts");
  expect(self?.imports.map(({ specifier }) => specifier)).toContain("../../src/sys/mod.ts");
  expect(files.find(({ path }) => path === "src/sys/mod.ts")?.imports.length).toBeGreaterThan(10);
});
