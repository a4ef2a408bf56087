import { type OperationEntry, operationEntry } from "./entry.ts";

/** xxh3 of the JSON as 16 digits, a space, JSON, end of line. */
const LINE = /^([0-9a-f]{16}) (\{.*\})$/;

/** One entry as a line with its checksum. */
export function entryLine(entry: OperationEntry): string {
  const json = JSON.stringify(entry);
  return `${checksumOf(json)} ${json}\n`;
}

/**
 * The entries of a log. A line that is not whole is none: a process that is killed while it writes leaves at most a part of
 * one, at the end.
 */
export function parseEntries(text: string): OperationEntry[] {
  return text.split("\n").flatMap((line) => {
    const [, checksum, json] = LINE.exec(line) ?? [];
    if (json === undefined || checksumOf(json) !== checksum) return [];
    const entry = operationEntry.safeParse(jsonOf(json));
    return entry.success ? [entry.data] : [];
  });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checksumOf(json: string): string {
  return Bun.hash.xxHash3(json).toString(16).padStart(16, "0");
}
