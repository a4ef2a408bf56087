import { readFileSync, readlinkSync } from "node:fs";
import { executableOf } from "../../src/sys/mod.ts";
import { redactArguments } from "../secrets/mod.ts";

/** A process as /proc shows it. */
export interface ProcessFacts {
  readonly pid: number;
  readonly executable: string;
  /** Secrets are redacted. */
  readonly commandLine: readonly string[];
  /** What its relative paths are relative to. */
  readonly workingFolder: string;
}

/** Undefined for another user's process, or one that is gone. */
export function processFacts(pid: number): ProcessFacts | undefined {
  const executable = executableOf(pid);
  if (executable === undefined) return undefined;
  try {
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
    const workingFolder = readlinkSync(`/proc/${pid}/cwd`);
    return { pid, executable, commandLine: redactArguments(commandLine), workingFolder };
  } catch {
    return undefined;
  }
}
