import type { SourceFile } from "./source-files.ts";

const VALUE = /^export\s+(?:abstract\s+)?(?:async\s+)?(?:function\*?|class|const|let|enum)\s+([\w$]+)/gm;
const TYPE = /^export\s+(?:interface|type)\s+([\w$]+)/gm;

/**
 * Exports that nobody imports, as "file: name". A type may be exported for a signature of its own file. What a public mod.ts passes on has users that we cannot see; a mod.ts
 * that is not public must have a user of each value.
 *
 * @param sources The files to judge.
 * @param users All files that may import them, `sources` among them.
 */
export function deadExports(
  sources: readonly SourceFile[],
  users: readonly SourceFile[],
  publicPaths: ReadonlySet<string>,
): string[] {
  const used = usedNames(users);
  const isUsed = (path: string, name: string) =>
    used.get(path)?.has(name) || used.get(path)?.has("*") || false;
  const values = new Map(sources.map((file) => [file.path, namesIn(file, VALUE)]));
  const isValue = (path: string | undefined, name: string) => values.get(path ?? "")?.includes(name) ?? false;
  return sources.flatMap((file) => {
    const own = [...namesIn(file, VALUE), ...namesIn(file, TYPE).filter((name) => !isMentioned(file, name))];
    const passedOn = publicPaths.has(file.path)
      ? []
      : file.imports
          .filter(({ isReExport }) => isReExport)
          .flatMap(({ names, target }) => names.filter((name) => isValue(target, name)));
    const suspects = publicPaths.has(file.path) ? [] : [...own, ...passedOn];
    return suspects.filter((name) => !isUsed(file.path, name)).map((name) => `${file.path}: ${name}`);
  });
}

/** Files that nobody imports or names (a Worker's file is named by its URL). */
export function deadFiles(
  sources: readonly SourceFile[],
  users: readonly SourceFile[],
  entryPaths: ReadonlySet<string>,
): string[] {
  const imported = new Set(users.flatMap(({ imports }) => imports.map(({ target }) => target)));
  const isNamed = (path: string) => {
    const name = path.split("/").at(-1) as string;
    return users.some((file) => file.path !== path && file.text.includes(`/${name}"`));
  };
  return sources
    .map(({ path }) => path)
    .filter((path) => !imported.has(path) && !entryPaths.has(path) && !isNamed(path));
}

function usedNames(users: readonly SourceFile[]): Map<string, Set<string>> {
  const used = new Map<string, Set<string>>();
  for (const { imports } of users) {
    for (const { target, names } of imports) {
      if (target === undefined) continue;
      const known = used.get(target) ?? new Set<string>();
      used.set(target, known);
      for (const name of names) known.add(name);
    }
  }
  return used;
}

/** True for a name that its own file uses beyond the declaration. */
function isMentioned({ code }: SourceFile, name: string): boolean {
  return code.split(new RegExp(`\\b${name}\\b`)).length > 2;
}

function namesIn({ code }: SourceFile, pattern: RegExp): string[] {
  return [...code.matchAll(pattern)].map(([, name]) => name as string);
}
