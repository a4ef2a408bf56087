import { closeSync, fstatSync, openSync, readFileSync } from "node:fs";
import { requireOwn } from "./own-file.ts";

/** The text of a file that only this user or root can write; undefined where there is none, or it cannot be read. @throws StateError */
export function readOwnFile(path: string, remedy: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    requireOwn(path, fstatSync(fd), remedy);
    return readFileSync(fd, "utf8");
  } finally {
    closeSync(fd);
  }
}
