import { FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_JSON_DEPTH } from "../../src/limits.ts";

/** Whoever prints or walks JSON recurses: what is nested without end is refused before. @throws FormatError */
export function expectShallow(value: unknown, section: string, offset: number): void {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_SNAPSHOT_JSON_DEPTH) {
      const message = `the ${section} is nested more deeply than ${MAX_SNAPSHOT_JSON_DEPTH} levels`;
      throw new FormatError(message, section, offset);
    }
    level = level.flatMap((item) =>
      typeof item === "object" && item !== null ? Object.values(item).filter(isNested) : [],
    );
  }
}

function isNested(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
