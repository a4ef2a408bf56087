import { NativeBuffer } from "../../src/sys/mod.ts";
import { ETHERNET_HEADER_BYTES, MAC_BYTES, NET_HEADER_BYTES } from "./config.ts";

/** Ethernet's shortest frame, without its checksum. */
const FRAME_BYTES = 60;
const ETHERTYPE_RARP = 0x8035;
// RFC 903: hardware Ethernet, protocol IPv4, address lengths 6 and 4, operation 3 ("request reverse").
const RARP = { ethernet: 1, ipv4: 0x0800, request: 3 } as const;

/**
 * A broadcast from `mac` that tells switches where it is now, behind an empty virtio header: a reverse ARP request,
 * which nobody needs to answer.
 */
export function rarpFrame(mac: Uint8Array): NativeBuffer {
  const buffer = new NativeBuffer(NET_HEADER_BYTES + FRAME_BYTES);
  const { bytes, view } = buffer;
  const ethernet = NET_HEADER_BYTES;
  bytes.fill(0xff, ethernet, ethernet + MAC_BYTES);
  bytes.set(mac, ethernet + MAC_BYTES);
  view.setUint16(ethernet + 2 * MAC_BYTES, ETHERTYPE_RARP);
  const arp = ethernet + ETHERNET_HEADER_BYTES;
  view.setUint16(arp, RARP.ethernet);
  view.setUint16(arp + 2, RARP.ipv4);
  view.setUint8(arp + 4, MAC_BYTES);
  view.setUint8(arp + 5, 4);
  view.setUint16(arp + 6, RARP.request);
  // Sender and target are both this address; the protocol addresses are unknown, 0.
  bytes.set(mac, arp + 8);
  bytes.set(mac, arp + 18);
  return buffer;
}
