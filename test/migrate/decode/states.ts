/** States of programs that are not here, put together by what their sources say. */
import type { StateTree } from "../../../migrate/decode/mod.ts";

/** The tree, which must be there. */
export function stateOf(tree: StateTree | undefined): StateTree {
  if (tree === undefined) throw new Error("the state was not recognised");
  return tree;
}

/** passt with one TCP connection, big-endian (migrate.c, flow.c, tcp_conn.h). */
export function passtState(version: number): Uint8Array {
  const u8 = (value: number) => Buffer.of(value);
  const u16 = (value: number) => Buffer.of(value >> 8, value & 0xff);
  const u32 = (value: number) => Buffer.of(value >>> 24, value >>> 16, value >>> 8, value);
  const ipv6 = Buffer.from("20010db8000000000000000000000001", "hex");
  const mapped = (...bytes: number[]) => Buffer.concat([Buffer.alloc(10), Buffer.of(0xff, 0xff, ...bytes)]);
  const guest = mapped(10, 0, 2, 15);
  const server = mapped(93, 184, 216, 34);
  const [sendQueue, receiveQueue] = [Buffer.from("to send"), Buffer.from("received")];
  return Buffer.concat([
    ...[Buffer.from("b1bb1d1b0bb1d1b0", "hex"), u32(version), u32(version)],
    ...[ipv6, ipv6, Buffer.of(10, 0, 2, 15), Buffer.from("525400123456", "hex"), u32(1)],
    ...[u8(2), u8(1), server, guest, u16(443), u16(40000), guest, server, u16(40000), u16(443)],
    ...[u8(0), u8(7), u8(7), u8(4), u32(1460), u32(1024), u8(0), u8(1), u16(512), u16(513)],
    ...[1, 2, 3, 4, 5].map((number) => u32(0x0a0b0c00 + number)),
    ...[100, 200, sendQueue.length, 3, receiveQueue.length, 1400, 77, 99, 5000, 6000, 7000, 201].map(u32),
    ...[u8(7), u8(7), u8(1), u8(6), sendQueue, receiveQueue],
  ]);
}

/** crosvm: serde's names, and a back-end's own state inside, as bytes. */
export function crosvmState(encoding: "CBOR" | "JSON"): Uint8Array {
  const backend = {
    avail_features: 7,
    queues: [{ next_avail: 3 }, { next_avail: 12 }],
    name: "block device",
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  if (encoding === "JSON") return json({ acked_features: 0x1_4000_0000, backend: [...json(backend)] });
  return cbor({ acked_features: 0x1_4000_0000, backend: cbor(backend) });
}

function cbor(value: unknown): Buffer {
  if (typeof value === "number") {
    const long = Buffer.alloc(9, 0x1b);
    long.writeBigUInt64BE(BigInt(value), 1);
    return value < 24 ? Buffer.of(value) : long;
  }
  if (typeof value === "string")
    return Buffer.concat([head(0x60, Buffer.byteLength(value)), Buffer.from(value)]);
  if (value instanceof Uint8Array) return Buffer.concat([head(0x40, value.length), value]);
  if (Array.isArray(value)) return Buffer.concat([head(0x80, value.length), ...value.map(cbor)]);
  const entries = Object.entries(value as object);
  return Buffer.concat([head(0xa0, entries.length), ...entries.flat().map(cbor)]);
}

function head(major: number, count: number): Buffer {
  return count < 24 ? Buffer.of(major + count) : Buffer.of(major + 24, count);
}
