import { writeFully } from "./write-fully.ts";

const LINE_BYTES = 16;
/** Text is handed on in pieces of so many lines. */
const PIECE_LINES = 4096;

/** Bytes as `hexdump -C` prints them, in pieces of many lines: offsets, two groups of eight, and what is printable. */
function* hexdump(chunks: Iterable<Uint8Array>): Generator<string, void> {
  let [offset, rest] = [0, new Uint8Array(0)];
  let lines: string[] = [];
  for (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const whole = bytes.length - (bytes.length % LINE_BYTES);
    for (let at = 0; at < whole; at += LINE_BYTES) {
      lines.push(lineOf(offset, bytes.subarray(at, at + LINE_BYTES)));
      offset += LINE_BYTES;
      if (lines.length < PIECE_LINES) continue;
      yield lines.join("\n");
      lines = [];
    }
    rest = new Uint8Array(bytes.subarray(whole));
  }
  if (rest.length > 0) lines.push(lineOf(offset, rest));
  lines.push(addressOf(offset + rest.length));
  yield lines.join("\n");
}

/** Straight to stdout: a state may have gigabytes. */
export function writeHexdump(chunks: Iterable<Uint8Array>): void {
  for (const piece of hexdump(chunks)) writeFully(1, `${piece}\n`);
}

function lineOf(offset: number, bytes: Uint8Array): string {
  const pairs = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"));
  const groups = [pairs.slice(0, 8), pairs.slice(8)].map((group) => group.join(" ").padEnd(23));
  const text = Array.from(bytes, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "."));
  return `${addressOf(offset)}  ${groups.join("  ")}  |${text.join("")}|`;
}

function addressOf(offset: number): string {
  return offset.toString(16).padStart(8, "0");
}
