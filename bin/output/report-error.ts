import { VhuError } from "../../src/errors.ts";
import { toJson } from "./json.ts";
import { nextStep } from "./next-step.ts";
import { printable } from "./printable.ts";
import { isBrokenPipe, writeFully } from "./write-fully.ts";

const STDERR = 2;

export interface ErrorStyle {
  readonly json: boolean;
  readonly debug: boolean;
}

/** Says on stderr what went wrong, and returns the exit status. */
export function reportError(error: unknown, style: ErrorStyle): number {
  if (isBrokenPipe(error)) return (error as VhuError).exitStatus;
  try {
    writeFully(STDERR, style.json ? `${toJson(documentOf(error))}\n` : textOf(error, style.debug));
  } catch (failure) {
    if (!isBrokenPipe(failure)) throw failure;
  }
  return error instanceof VhuError ? error.exitStatus : 1;
}

function documentOf(error: unknown): Record<string, unknown> {
  if (!(error instanceof VhuError)) {
    return { type: "error", code: "BUG", message: messageOf(error), exitStatus: 1, stack: stackOf(error) };
  }
  const { code, message, details, exitStatus, name } = error;
  return { type: "error", code, name, message, details, exitStatus, causes: causesOf(error) };
}

function textOf(error: unknown, debug: boolean): string {
  const lines: string[] = [];
  if (error instanceof VhuError) {
    lines.push(`vhu: ${error.message}`);
    const causes = causesOf(error).filter((cause) => !error.message.includes(cause));
    lines.push(...causes.map((cause) => `  because: ${cause}`));
    const step = nextStep(error);
    if (step !== undefined) lines.push(`  ${step}`);
  } else {
    lines.push(`vhu: ${messageOf(error)}`, "  this is a bug in vhu: please report it with what you did");
    if (!debug) lines.push("  --debug shows where it happened");
  }
  if (debug) lines.push(...stackOf(error).split("\n"));
  return `${lines.map(printable).join("\n")}\n`;
}

function causesOf(error: Error): string[] {
  const causes: string[] = [];
  for (let cause = error.cause; cause !== undefined && causes.length < 8; ) {
    causes.push(messageOf(cause));
    cause = cause instanceof Error ? cause.cause : undefined;
  }
  return causes;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
