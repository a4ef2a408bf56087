/**
 * Fuzz target of the wire: whole messages, from valid ones by damage, through header checks, table and codec.
 *
 * `bun test/fuzz/wire.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/wire.
 */

import { ProtocolError } from "../../src/errors.ts";
import {
  checkReplyHeader,
  checkRequestHeader,
  type Dialect,
  decodeHeader,
  dialects,
  encodeHeader,
  HEADER_BYTES,
  headerFlag,
  type MessageTable,
  REPLY_FLAGS,
  type Side,
  tableFor,
} from "../../src/wire/mod.ts";
import { checkDecode } from "../property/wire-oracle.ts";
import { backendGolden, crosvm2024Golden, fromHex, frontendGolden } from "../wire/golden.ts";

export interface FuzzInput {
  readonly dialect: Dialect;
  readonly side: Side;
  /** Header and payload. */
  readonly bytes: Uint8Array;
}

/** Runs one message through everything. Returns its outcome; throws where the wire broke its promise. */
export function runOne({ dialect, side, bytes }: FuzzInput, table: MessageTable = tableFor(dialect)): string {
  if (bytes.length < HEADER_BYTES) return "no header";
  const header = decodeHeader(new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES));
  const isReply = (header.flags & headerFlag.REPLY) !== 0;
  try {
    if (isReply) checkReplyHeader(header, header.request);
    else checkRequestHeader(header);
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error;
    return `header ${error.path}`;
  }
  const message = table[side].get(header.request);
  if (message === undefined) return "unknown message";
  const codec = isReply ? message.reply : message.payload;
  if (codec === undefined) return "no reply body";
  return checkDecode(codec, bytes.subarray(HEADER_BYTES), message.name);
}

export interface FuzzReport {
  readonly messages: number;
  readonly accepted: number;
  /** How often each outcome was seen. */
  readonly outcomes: ReadonlyMap<string, number>;
}

/** Runs `iterations` messages that follow from `seed` alone. */
export function fuzz(seed: number, iterations: number): FuzzReport {
  const random = generator(seed);
  const tables = Object.values(dialects).map((dialect) => tableFor(dialect));
  const outcomes = new Map<string, number>();
  const starts = validMessages();
  for (let i = 0; i < iterations; i++) {
    const start = starts[random() % starts.length]!;
    const table = tables[random() % tables.length]!;
    const bytes = damage(start.bytes, random);
    const outcome = runOne({ dialect: table.dialect, side: start.side, bytes }, table);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return { messages: iterations, accepted: outcomes.get("accepted") ?? 0, outcomes };
}

/** mulberry32: small, and the same on every machine. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

const INTERESTING = [0, 1, 2, 7, 8, 9, 0x1f, 0x20, 0x7f, 0x80, 0xfe, 0xff];
const CUTS = [0, 0, 0, 0, 0, 0, 1, 8, 16, 32];

function damage(valid: Uint8Array, random: () => number): Uint8Array {
  const bytes = resize(valid, random);
  for (let changes = random() % 5; changes > 0 && bytes.length > 0; changes--) {
    // Half of the changes go to the first 40 bytes, where the counts and the flags are; few to the header.
    const at = random() % (random() % 2 === 0 ? Math.min(40, bytes.length) : bytes.length);
    if (at < HEADER_BYTES && random() % 8 !== 0) continue;
    bytes[at] = random() % 2 === 0 ? INTERESTING[random() % INTERESTING.length]! : random();
  }
  // Mostly the header tells the size that there is: else nothing but the size check would be reached.
  if (bytes.length >= HEADER_BYTES && random() % 16 !== 0) {
    new DataView(bytes.buffer).setUint32(8, bytes.length - HEADER_BYTES, true);
  }
  return bytes;
}

/** Mostly the same size, sometimes cut off or extended, rarely within the header. */
function resize(valid: Uint8Array, random: () => number): Uint8Array {
  let length = valid.length;
  if (random() % 32 === 0) length = random() % (valid.length + 1);
  else if (random() % 8 === 0) length += CUTS[random() % CUTS.length]!;
  else length = Math.max(Math.min(HEADER_BYTES, length), length - CUTS[random() % CUTS.length]!);
  const bytes = new Uint8Array(length);
  bytes.set(valid.subarray(0, length));
  return bytes;
}

/** The golden bytes of every message of every dialect, with their headers. */
function validMessages(): readonly { readonly side: Side; readonly bytes: Uint8Array }[] {
  const golden = { frontend: frontendGolden, backend: { ...backendGolden } };
  const found: { side: Side; bytes: Uint8Array }[] = [];
  for (const dialect of [dialects.crosvm, dialects["crosvm-2024"]]) {
    for (const side of ["frontend", "backend"] as const) {
      for (const message of tableFor(dialect)[side].values()) {
        const own = dialect === dialects["crosvm-2024"] && message.number >= 1000 && message.number <= 1001;
        const rows = (own ? crosvm2024Golden : golden[side]) as Record<
          string,
          { readonly request?: readonly [unknown, string]; readonly reply?: readonly [unknown, string] }
        >;
        const { request, reply } = rows[message.name]!;
        if (request !== undefined)
          found.push({ side, bytes: whole(message.number, headerFlag.VERSION, request[1]) });
        if (reply !== undefined) found.push({ side, bytes: whole(message.number, REPLY_FLAGS, reply[1]) });
      }
    }
  }
  return found;
}

function whole(number: number, flags: number, payloadHex: string): Uint8Array {
  const payload = fromHex(payloadHex);
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  encodeHeader(new DataView(bytes.buffer), number, flags, payload.length);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

if (import.meta.main) {
  const [seed = "1", iterations = "1000000"] = process.argv.slice(2);
  const { messages, accepted, outcomes } = fuzz(Number(seed), Number(iterations));
  console.log(`${messages} messages, ${accepted} accepted`);
  for (const [outcome, count] of [...outcomes].sort((a, b) => b[1] - a[1]))
    console.log(`${count}\t${outcome}`);
}
