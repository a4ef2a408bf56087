import { check, Fd, libc, NativeBuffer, readSome, writeSome } from "../../src/sys/mod.ts";

/**
 * `udp-segments.ts HOST PORT GUEST COUNT SIZE`: takes COUNT datagrams of SIZE bytes, then sends as many back as one write that the
 * kernel is to segment (UDP_SEGMENT). Exit status 1 when something else came.
 */
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;

const [host = "", port = "", guest = "", count = "", size = ""] = process.argv.slice(2);
const sizeBytes = Number(size);

function address(text: string): NativeBuffer {
  const buffer = new NativeBuffer(16);
  buffer.view.setUint16(0, AF_INET, true);
  buffer.view.setUint16(2, Number(port));
  buffer.bytes.set(text.split(".").map(Number), 4);
  return buffer;
}

using socket = new Fd(check(libc.socket(AF_INET, SOCK_DGRAM, 0), "socket", "udp"), "udp");
check(libc.bind(socket.number, address(host).address, 16), "bind", host);
check(libc.connect(socket.number, address(guest).address, 16), "connect", guest);
const all = new NativeBuffer(Number(count) * sizeBytes);
for (let i = 0; i < Number(count); i++) {
  const got = readSome(socket, all, i * sizeBytes, sizeBytes + 1);
  if (got !== sizeBytes) process.exit(1);
}
const segment = new NativeBuffer(4);
segment.view.setInt32(0, sizeBytes, true);
check(libc.setsockopt(socket.number, SOL_UDP, UDP_SEGMENT, segment.address, 4), "setsockopt", "UDP_SEGMENT");
process.exit(writeSome(socket, all, 0, all.sizeBytes) === all.sizeBytes ? 0 : 1);
