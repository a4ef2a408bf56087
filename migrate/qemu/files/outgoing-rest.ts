import { readOutline, type StreamOutline } from "../decode/stream-outline.ts";
import { COMMAND } from "../stream-format.ts";
import type { ParsedStream } from "../stream-parser.ts";

/** Nobody reads the answers that they ask for. QEMU 10.0.2 takes a file that has them, too (tried); its own have none. */
const RETURN_PATH: readonly number[] = [COMMAND.openReturnPath, COMMAND.ping];

/**
 * What is not memory, for a file. vhu saves with QEMU's return path open, so that QEMU goes on by itself when vhu dies; the
 * two commands that ask for it are left out.
 */
export function withoutReturnPath(parsed: ParsedStream): ParsedStream & { readonly outline: StreamOutline } {
  const { commands } = readOutline(parsed.rest);
  const pieces: Uint8Array[] = [];
  let at = 0;
  let removedBytes = 0;
  for (const { command, offset, sizeBytes } of commands) {
    if (!RETURN_PATH.includes(command)) continue;
    pieces.push(parsed.rest.subarray(at, offset));
    at = offset + sizeBytes;
    removedBytes += sizeBytes;
  }
  const rest = Buffer.concat([...pieces, parsed.rest.subarray(at)]);
  const sections = parsed.sections.map((section) => ({ ...section, offset: section.offset - removedBytes }));
  const pagesOffset = parsed.pagesOffset - removedBytes;
  return { ...parsed, rest, sections, pagesOffset, outline: readOutline(rest) };
}
