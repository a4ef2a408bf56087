import type { SourceFile } from "./source-files.ts";

export interface FunctionLength {
  /** Of the line where the body opens, from 1. */
  readonly line: number;
  readonly lineCount: number;
}

const BLOCK =
  /^\s*(?:\}\s*)?(?:if|else|for|while|switch|do|try|catch|finally|class|interface|return|using|await using)\b/;
const FUNCTION = /\bfunction\b|=> \{$/;
const METHOD =
  /^\s*(?:(?:static|async|override|private|get|set)\s+)*\*?[#\w$.[\]]+(?:<.*>)?\(.*\)(?:: .+)? \{$/;
/** The last line of a signature that takes several. */
const SIGNATURE_END = /^\s*\)(?:: .+)? (?:=> )?\{$/;

/** Every function with a body of more than one line. The formatter's indentation is relied on, so no parser is needed. */
export function functionLengths({ code }: SourceFile): FunctionLength[] {
  const lines = code.split("\n").map((line) => line.trimEnd());
  return lines.flatMap((line, index) => {
    if (!isFunctionStart(line)) return [];
    const indentation = indentationOf(line);
    const start = SIGNATURE_END.test(line) ? signatureStart(lines, index, indentation) : index;
    const length = lines.slice(index + 1).findIndex((next) => {
      return next.startsWith("}", indentation) && indentationOf(next) === indentation;
    });
    return length < 0 ? [] : [{ line: start + 1, lineCount: index - start + length + 2 }];
  });
}

function isFunctionStart(line: string): boolean {
  if (!line.endsWith("{")) return false;
  if (SIGNATURE_END.test(line) || FUNCTION.test(line)) return true;
  return METHOD.test(line) && !BLOCK.test(line);
}

function signatureStart(lines: readonly string[], end: number, indentation: number): number {
  const before = lines.slice(0, end);
  const start = before.findLastIndex((line) => line !== "" && indentationOf(line) === indentation);
  return start < 0 ? end : start;
}

function indentationOf(line: string): number {
  return line.length - line.trimStart().length;
}
