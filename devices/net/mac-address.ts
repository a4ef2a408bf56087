import { randomBytes } from "node:crypto";
import { UsageError } from "../../src/errors.ts";
import { MAC_BYTES } from "./config.ts";

/**
 * The 6 bytes of "52:54:00:12:34:56".
 * @throws UsageError unless it is the address of one interface
 */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) {
    throw new UsageError(`"${text}" is no MAC address; one looks like 52:54:00:12:34:56`);
  }
  const bytes = Uint8Array.from(text.split(":"), (part) => Number.parseInt(part, 16));
  if ((bytes[0]! & 1) !== 0) throw new UsageError(`${text} is a multicast address, no interface can have it`);
  return bytes;
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** An address that is nobody's: locally administered, unicast (IEEE 802, bits 1 and 0 of the first byte). */
export function randomMac(): Uint8Array {
  const mac = new Uint8Array(randomBytes(MAC_BYTES));
  mac[0] = (mac[0]! & 0xfc) | 2;
  return mac;
}
