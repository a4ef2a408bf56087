import { FormatError } from "../../src/errors.ts";

/** An object of the description that ends a stream, of which nothing has been looked at. */
export type Json = Readonly<Record<string, unknown>>;

/** @throws FormatError, as all here, with the place in the description */
export function object(value: unknown, path: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  return fail(path, "is no object");
}

export function list(value: unknown, path: string): readonly unknown[] {
  return Array.isArray(value) ? value : fail(path, "is no list");
}

export function text(value: unknown, path: string): string {
  return typeof value === "string" ? value : fail(path, "is no text");
}

export function count(value: unknown, path: string): number {
  return Number.isSafeInteger(value) && (value as number) >= 0
    ? (value as number)
    : fail(path, "is no count");
}

export function fail(path: string, what: string): never {
  throw new FormatError(`${path} ${what}`, "vmdesc");
}
