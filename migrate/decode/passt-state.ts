/**
 * What passt writes: the addresses that it has seen of the guest, and its TCP connections with their queues. All integers
 * are big-endian, and no structure has padding (passt, migrate.c, flow.c and tcp_conn.h; version 2 of the stream).
 */
import { ByteReader } from "./byte-reader.ts";
import type { StateTree } from "./state-tree.ts";

const MAGIC = 0xb1bb_1d1b_0bb1_d1b0n;
/** passt: "v1 was released, but not widely used", and has other connections. */
const KNOWN_VERSION = 2;
/** Of a connection's two parts, as they are stored. */
const FLOW_BYTES = 112;
const EXTENDED_BYTES = 52;

const INTERFACES = ["none", "host", "tap", "splice"] as const;
/** include/net/tcp_states.h */
const TCP_STATES = [
  "skipped by the source",
  "ESTABLISHED",
  "SYN_SENT",
  "SYN_RECV",
  "FIN_WAIT1",
  "FIN_WAIT2",
  "TIME_WAIT",
  "CLOSE",
  "CLOSE_WAIT",
  "LAST_ACK",
  "LISTEN",
  "CLOSING",
] as const;

/** @throws FormatError */
export function decodePasstState(bytes: Uint8Array): StateTree {
  const reader = new ByteReader(bytes, "passt state");
  if (reader.u64be() !== MAGIC) reader.fail("this is no state of passt", 0);
  const version = reader.u32be();
  const compatibleVersion = reader.u32be();
  const header = {
    name: "header",
    children: [
      { name: "version", value: version },
      { name: "compatibleVersion", value: compatibleVersion },
    ],
  };
  const name = "state";
  const note = `passt, version ${version}`;
  if (version !== KNOWN_VERSION) {
    const rest = {
      name: "rest",
      bytes: reader.take(reader.left),
      note: `only version ${KNOWN_VERSION} is known`,
    };
    return { name, note, children: [header, rest] };
  }
  const addresses = guestAddresses(reader);
  const flows = connections(reader);
  reader.expectEnd();
  return {
    name,
    note,
    children: [header, addresses, { name: "connections", note: `${flows.length}`, children: flows }],
  };
}

function guestAddresses(reader: ByteReader): StateTree {
  return {
    name: "guestAddresses",
    children: [
      { name: "ipv6", value: ipv6(reader.take(16)) },
      { name: "ipv6LinkLocal", value: ipv6(reader.take(16)) },
      { name: "ipv4", value: reader.take(4).join(".") },
      {
        name: "mac",
        value: reader
          .take(6)
          .toHex()
          .replace(/(..)(?=.)/g, "$1:"),
      },
    ],
  };
}

function connections(reader: ByteReader): StateTree[] {
  const count = reader.u32be();
  reader.expectItems(count, FLOW_BYTES + EXTENDED_BYTES);
  const parts = Array.from({ length: count }, () => flow(reader));
  return parts.map((children, index) => ({
    name: `[${index}]`,
    children: [...children, ...extended(reader)],
  }));
}

function flow(reader: ByteReader): StateTree[] {
  const interfaces = [reader.u8(), reader.u8()].map((number) => INTERFACES[number] ?? `unknown ${number}`);
  const sides = interfaces.map((onto, index) => ({
    name: index === 0 ? "initiator" : "target",
    note: `by ${onto}`,
    children: endpoints(reader),
  }));
  const u8 = (name: string) => ({ name, value: reader.u8() });
  const u16 = (name: string) => ({ name, value: reader.u16be() });
  const u32 = (name: string) => ({ name, value: reader.u32be() });
  const numbers = [
    ...["retransmissions", "windowScaleFromTap", "windowScaleToTap", "events"].map(u8),
    u32("tapMss"),
    { ...u32("sendBuffer"), note: "in units of 256 bytes" },
    ...["flags", "lastDuplicateAck"].map(u8),
    ...["windowFromTap", "windowToTap"].map(u16),
    ...["seqToTap", "seqAckFromTap", "seqFromTap", "seqAckToTap", "seqInitialFromTap"].map(u32),
  ];
  return [...sides, ...numbers];
}

/** Addresses of either family, an IPv4 one as ::ffff:a.b.c.d; ports. */
function endpoints(reader: ByteReader): StateTree[] {
  const [ours, theirs] = [ipv6(reader.take(16)), ipv6(reader.take(16))];
  return [
    { name: "ours", value: ours },
    { name: "theirs", value: theirs },
    { name: "ourPort", value: reader.u16be() },
    { name: "theirPort", value: reader.u16be() },
  ];
}

function extended(reader: ByteReader): StateTree[] {
  const u32 = (name: string) => ({ name, value: reader.u32be() });
  const numbers = [
    ...[
      "seqSend",
      "seqReceive",
      "sendQueueBytes",
      "notSentBytes",
      "receiveQueueBytes",
      "mss",
      "timestamp",
    ].map(u32),
    ...["sendWindowLast", "sendWindow", "maxWindow", "receiveWindow", "receiveWindowUpdate"].map(u32),
    ...["sendWindowScale", "receiveWindowScale"].map((name) => ({ name, value: reader.u8() })),
  ];
  const state = reader.u8();
  const options = reader.u8();
  // A connection that the source could not dump is named, without its queues.
  const [sendBytes, receiveBytes] = state === 0 ? [0, 0] : [numbers[2]?.value ?? 0, numbers[4]?.value ?? 0];
  return [
    ...numbers,
    { name: "tcpState", value: state, note: TCP_STATES[state] ?? "unknown" },
    { name: "tcpOptions", value: options },
    { name: "sendQueue", bytes: reader.take(sendBytes) },
    { name: "receiveQueue", bytes: reader.take(receiveBytes) },
  ];
}

function ipv6(bytes: Uint8Array): string {
  const isMapped =
    bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  if (isMapped) return bytes.subarray(12).join(".");
  const groups =
    bytes
      .toHex()
      .match(/..../g)
      ?.map((group) => group.replace(/^0{1,3}/, "")) ?? [];
  return groups.join(":").replace(/(?:^|:)0(?::0)+(?:$|:)/, "::");
}
