import { join, relative } from "node:path";

/** The root of the checkout. */
export const ROOT = join(import.meta.dirname, "..", "..");

/** A TypeScript file of the project. */
export interface SourceFile {
  /** From the root, with "/". */
  readonly path: string;
  readonly text: string;
  /** The text with comments and the insides of strings blanked out; lines and columns stay. */
  readonly code: string;
  readonly imports: readonly Import[];
}

export interface Import {
  /** The module as it is written, e.g. "../sys/mod.ts" or "node:fs". */
  readonly specifier: string;
  /** From the root, for a module of the project. */
  readonly target?: string;
  /** What is imported or re-exported, under the exporter's names; "*" for all of it. */
  readonly names: readonly string[];
  /** Its names under those that the file exports them by, where it is an `export … from`. */
  readonly isReExport: boolean;
}

/** All TypeScript files below these folders, in order. */
export async function sourceFiles(...folders: readonly string[]): Promise<SourceFile[]> {
  const paths: string[] = [];
  for (const folder of folders) {
    for await (const path of new Bun.Glob(`${folder}/**/*.ts`).scan({ cwd: ROOT })) paths.push(path);
  }
  return Promise.all(
    paths.sort().map(async (path) => {
      const text = await Bun.file(join(ROOT, path)).text();
      return { path, text, code: blanked(text), imports: importsOf(path, text) };
    }),
  );
}

const FROM = /^(import|export)\s+(type\s+)?([\w$*{}\s,]+?)\s+from\s+"([^"]+)"/gm;
const CALL = /(?:\bimport|\brequire)\("([^"]+)"\)(?:\)?\s*(?:as typeof import\("[^"]+"\))?\)?\.(\w+))?/g;
const SIDE_EFFECT = /^import\s+"([^"]+)"/gm;

/** The formatter writes all imports in these forms, so no parser is needed. */
function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  for (const [, keyword, , clause = "", specifier = ""] of text.matchAll(FROM)) {
    found.push(importOf(path, specifier, namesOf(clause), keyword === "export"));
  }
  for (const [, specifier = "", name] of text.matchAll(CALL)) {
    found.push(importOf(path, specifier, [name ?? "*"], false));
  }
  for (const [, specifier = ""] of text.matchAll(SIDE_EFFECT)) {
    found.push(importOf(path, specifier, [], false));
  }
  return found;
}

function importOf(path: string, specifier: string, names: readonly string[], isReExport: boolean): Import {
  if (!specifier.startsWith(".")) return { specifier, names, isReExport };
  const target = relative(ROOT, join(ROOT, path, "..", specifier));
  return { specifier, names, isReExport, target };
}

function namesOf(clause: string): string[] {
  if (clause.includes("*")) return ["*"];
  const inner = /\{([^}]*)\}/.exec(clause)?.[1] ?? "";
  return inner
    .split(",")
    .map((name) =>
      name
        .trim()
        .replace(/^type /, "")
        .replace(/ as .*$/, ""),
    )
    .filter((name) => name !== "");
}

/** One token that hides code: a comment, a string, a template, or a regular expression where one can stand. */
const HIDDEN =
  /\/\*[\s\S]*?\*\/|\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[\s\S])*`|(?<=[=(,:[!&|?]\s*)\/(?![*/])(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/g;

function blanked(text: string): string {
  return text.replace(HIDDEN, (token) => token.replace(/[^\n]/g, " "));
}
