/** Frames as a guest sends them, and what a kernel answers: ARP (RFC 826) and ICMP echo (RFC 792) over IPv4. */

type Ipv4 = readonly [number, number, number, number];

const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806 } as const;
const IP_HEADER = 14;
const ICMP_HEADER = IP_HEADER + 20;
const ICMP_DATA = ICMP_HEADER + 8;
const PROTOCOL_ICMP = 1;
const UDP_HEADER = IP_HEADER + 20;
const PROTOCOL_UDP = 17;

function ethernet(to: Uint8Array, from: Uint8Array, type: number, sizeBytes: number) {
  const bytes = new Uint8Array(14 + sizeBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(to);
  bytes.set(from, 6);
  view.setUint16(12, type);
  return { bytes, view };
}

/** "Who has `target`? Tell `source`." */
export function arpRequest(ask: { from: Uint8Array; source: Ipv4; target: Ipv4 }): Uint8Array {
  const { bytes, view } = ethernet(new Uint8Array(6).fill(0xff), ask.from, ETHERTYPE.arp, 28);
  view.setUint16(14, 1);
  view.setUint16(16, ETHERTYPE.ipv4);
  bytes.set([6, 4, 0, 1, ...ask.from, ...ask.source, 0, 0, 0, 0, 0, 0, ...ask.target], 18);
  return bytes;
}

/** The address that an ARP reply tells; undefined for another frame. */
export function arpReplyOf(bytes: Uint8Array): Uint8Array | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint16(12) !== ETHERTYPE.arp || view.getUint16(20) !== 2) return undefined;
  return bytes.slice(22, 28);
}

export function echoRequest(ping: {
  from: Uint8Array;
  to: Uint8Array;
  source: Ipv4;
  target: Ipv4;
  sequence: number;
  sizeBytes: number;
}): Uint8Array {
  const { bytes, view } = ethernet(ping.to, ping.from, ETHERTYPE.ipv4, 28 + ping.sizeBytes);
  view.setUint8(IP_HEADER, 0x45);
  view.setUint16(IP_HEADER + 2, 28 + ping.sizeBytes);
  view.setUint8(IP_HEADER + 8, 64);
  view.setUint8(IP_HEADER + 9, PROTOCOL_ICMP);
  bytes.set([...ping.source, ...ping.target], IP_HEADER + 12);
  view.setUint16(IP_HEADER + 10, checksum(bytes.subarray(IP_HEADER, ICMP_HEADER)));
  view.setUint8(ICMP_HEADER, 8);
  view.setUint16(ICMP_HEADER + 6, ping.sequence);
  for (let i = 0; i < ping.sizeBytes; i++) bytes[ICMP_DATA + i] = (i * 13 + (i >> 8)) & 0xff;
  view.setUint16(ICMP_HEADER + 2, checksum(bytes.subarray(ICMP_HEADER)));
  return bytes;
}

/** What an echo reply carries; undefined for another frame. */
export function echoReplyOf(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isIcmp = view.getUint16(12) === ETHERTYPE.ipv4 && bytes[IP_HEADER + 9] === PROTOCOL_ICMP;
  if (!isIcmp || bytes[ICMP_HEADER] !== 0) return undefined;
  const sizeBytes = view.getUint16(IP_HEADER + 2) - 28;
  const data = bytes.subarray(ICMP_DATA, ICMP_DATA + sizeBytes);
  return {
    sequence: view.getUint16(ICMP_HEADER + 6),
    sizeBytes,
    intact: data.length === sizeBytes && data.every((byte, i) => byte === ((i * 13 + (i >> 8)) & 0xff)),
  };
}

/** One UDP datagram, however large, whose checksum is left to be completed as the virtio header says. */
export function udpFrame(udp: {
  from: Uint8Array;
  to: Uint8Array;
  source: Ipv4;
  target: Ipv4;
  port: number;
  data: Uint8Array;
}): Uint8Array {
  const { source, target, port, data } = udp;
  const { bytes, view } = ethernet(udp.to, udp.from, ETHERTYPE.ipv4, 28 + data.length);
  view.setUint8(IP_HEADER, 0x45);
  view.setUint16(IP_HEADER + 2, 28 + data.length);
  view.setUint8(IP_HEADER + 8, 64);
  view.setUint8(IP_HEADER + 9, PROTOCOL_UDP);
  bytes.set([...source, ...target], IP_HEADER + 12);
  view.setUint16(IP_HEADER + 10, checksum(bytes.subarray(IP_HEADER, UDP_HEADER)));
  view.setUint16(UDP_HEADER, port);
  view.setUint16(UDP_HEADER + 2, port);
  view.setUint16(UDP_HEADER + 4, 8 + data.length);
  const length = 8 + data.length;
  const pseudo = Uint8Array.of(...source, ...target, 0, PROTOCOL_UDP, length >> 8, length & 0xff);
  // Of the pseudo header alone, and not complemented: so the rest can be added.
  view.setUint16(UDP_HEADER + 6, ~checksum(pseudo) & 0xffff);
  bytes.set(data, UDP_HEADER + 8);
  return bytes;
}

function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += (bytes[i]! << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
