import assert from "node:assert/strict";
import type { Codec, ValueOf } from "./codec.ts";
import { type ProtocolFeature, protocolFeature, type VirtioFeature, virtioFeature } from "./features.ts";
import { empty } from "./payloads.ts";

export type Side = "frontend" | "backend";

/** An inclusive range: fds of a message, or bytes of a payload. */
export interface Range {
  readonly min: number;
  readonly max: number;
}

/** Which feature makes a message legal. "offered": seen in the back-end's mask; "negotiated": acknowledged as well. */
export type Gate =
  | { readonly space: "none" }
  | { readonly space: "virtio" | "protocol"; readonly mask: bigint; readonly when: "offered" | "negotiated" };

/**
 * When a message is answered, and with what.
 * - "ack": with a u64 (0 = ok), only if NEED_REPLY is set and REPLY_ACK was negotiated
 * - "always": with its reply body
 * - "log-shmfd": with its reply body if LOG_SHMFD was negotiated, else like "ack"
 * - "postcopy": with its reply body after POSTCOPY_LISTEN, else like "ack"
 */
export type ReplyRule = "ack" | "always" | "log-shmfd" | "postcopy";

/** One message of the protocol, as the spec describes it. */
export interface Message<P = unknown, R = unknown> {
  readonly name: string;
  readonly number: number;
  /** Who sends the request. */
  readonly side: Side;
  readonly meaning: string;
  readonly payload: Codec<P>;
  readonly sizeBytes: Range;
  /** The reply's body; undefined where the only answer is a u64 acknowledgement. */
  readonly reply: Codec<R> | undefined;
  readonly replySizeBytes: Range | undefined;
  readonly replyRule: ReplyRule;
  readonly fds: Range;
  readonly replyFds: Range;
  readonly gate: Gate;
}

/** A row of a message table. What is left out: no payload, no reply body, no fds, no gate. */
export interface Row {
  readonly number: number;
  readonly meaning: string;
  readonly payload?: Codec<unknown>;
  /** Payload bytes, one number or least and most; checked against the codec at load. */
  readonly sizeBytes?: number | readonly [min: number, max: number];
  readonly reply?: Codec<unknown>;
  readonly replySizeBytes?: number | readonly [min: number, max: number];
  /** "always" if there is a reply body, else "ack". */
  readonly replyRule?: ReplyRule;
  readonly fds?: Range;
  readonly replyFds?: Range;
  readonly gate?: Gate;
}

type PayloadOf<R extends Row> = R extends { payload: infer C } ? ValueOf<C> : ValueOf<typeof empty>;
type ReplyOf<R extends Row> = R extends { reply: infer C } ? ValueOf<C> : undefined;

/** A table of messages, keyed by their names. */
export type Messages<T extends Readonly<Record<string, Row>>> = {
  readonly [K in keyof T]: Message<PayloadOf<T[K]>, ReplyOf<T[K]>>;
};

export const noFds: Range = { min: 0, max: 0 };
export const oneFd: Range = { min: 1, max: 1 };
export const optionalFd: Range = { min: 0, max: 1 };
const ungated: Gate = { space: "none" };

/** Legal once every one of these protocol features was negotiated. */
export const negotiated = (...names: ProtocolFeature[]): Gate => ({
  space: "protocol",
  mask: names.reduce((mask, name) => mask | protocolFeature[name], 0n),
  when: "negotiated",
});
/** Legal once the back-end has offered this protocol feature. */
export const offered = (name: ProtocolFeature): Gate => ({
  space: "protocol",
  mask: protocolFeature[name],
  when: "offered",
});
/** Legal once this virtio feature was offered or negotiated. */
export const virtio = (name: VirtioFeature, when: "offered" | "negotiated"): Gate => ({
  space: "virtio",
  mask: virtioFeature[name],
  when,
});

/** Completes the rows, and checks every declared size against its codec and every number for being used once. */
export function messages<const T extends Readonly<Record<string, Row>>>(side: Side, rows: T): Messages<T> {
  const numbers = new Set<number>();
  const table: Record<string, Message> = {};
  for (const [name, row] of Object.entries(rows)) {
    assert.ok(!numbers.has(row.number), `message number ${row.number} is used twice`);
    numbers.add(row.number);
    table[name] = complete(name, side, row);
  }
  return Object.freeze(table) as unknown as Messages<T>;
}

function complete(name: string, side: Side, row: Row): Message {
  const payload = row.payload ?? empty;
  return Object.freeze({
    name,
    number: row.number,
    side,
    meaning: row.meaning,
    payload,
    sizeBytes: checkedSize(name, payload, row.sizeBytes ?? 0),
    reply: row.reply,
    replySizeBytes:
      row.reply === undefined ? undefined : checkedSize(name, row.reply, row.replySizeBytes ?? 0),
    replyRule: row.replyRule ?? (row.reply === undefined ? "ack" : "always"),
    fds: row.fds ?? noFds,
    replyFds: row.replyFds ?? noFds,
    gate: row.gate ?? ungated,
  });
}

function checkedSize(
  name: string,
  codec: Codec<unknown>,
  declared: number | readonly [number, number],
): Range {
  const [min, max] = typeof declared === "number" ? [declared, declared] : declared;
  assert.deepEqual(
    [codec.minBytes, codec.maxBytes],
    [min, max],
    `${name}: the declared size is not the struct's`,
  );
  return { min, max };
}
