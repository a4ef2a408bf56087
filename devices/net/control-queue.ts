import { MAX_NET_CONTROL_BYTES } from "../../src/limits.ts";
import type { Chain } from "../../src/vring/mod.ts";
import { MAC_BYTES, netFeature } from "./config.ts";
import { RX_MODES, type RxFilter } from "./rx-filter.ts";

// Virtio 1.3, 5.1.6.5: u8 class, u8 command, data; u8 ack.
const CLASS = { rx: 0, mac: 1, announce: 3, mq: 4 } as const;
const MAC_COMMAND = { tableSet: 0, addressSet: 1 } as const;
const ANNOUNCE_ACK = 0;
const MQ_PAIRS_SET = 0;
const ACK = { ok: 0, error: 1 } as const;
/** The first of the modes that need CTRL_RX_EXTRA. */
const FIRST_EXTRA_MODE = 2;

/** What the commands act upon. */
export interface ControlTarget {
  readonly filter: RxFilter;
  /** The features that the driver has acknowledged. */
  readonly acked: bigint;
  readonly queuePairs: number;
  setMac(mac: Uint8Array): void;
  setActivePairs(pairs: number): void;
  onAnnounced(): void;
}

/** Serves one command. Returns the bytes written: the acknowledgement, or nothing where there is no room for it. */
export function serveControl(chain: Chain, target: ControlTarget): number {
  if (chain.writableBytes === 0) return 0;
  const { readableBytes } = chain;
  let done = false;
  if (readableBytes >= 2 && readableBytes <= MAX_NET_CONTROL_BYTES) {
    const command = new Uint8Array(readableBytes);
    chain.copyFromReadable(0, command);
    done = execute(command[0]!, command[1]!, command.subarray(2), target);
  }
  return chain.copyToWritable(0, Uint8Array.of(done ? ACK.ok : ACK.error));
}

function execute(commandClass: number, command: number, data: Uint8Array, target: ControlTarget): boolean {
  const has = (feature: bigint) => (target.acked & feature) !== 0n;
  switch (commandClass) {
    case CLASS.rx:
      return has(netFeature.CTRL_RX) && setMode(command, data, target);
    case CLASS.mac:
      if (command === MAC_COMMAND.tableSet) return has(netFeature.CTRL_RX) && setTables(data, target.filter);
      return has(netFeature.CTRL_MAC_ADDR) && command === MAC_COMMAND.addressSet && setAddress(data, target);
    case CLASS.announce:
      if (!has(netFeature.GUEST_ANNOUNCE) || command !== ANNOUNCE_ACK) return false;
      target.onAnnounced();
      return true;
    case CLASS.mq:
      return has(netFeature.MQ) && command === MQ_PAIRS_SET && setPairs(data, target);
    default:
      return false;
  }
}

function setMode(command: number, data: Uint8Array, target: ControlTarget): boolean {
  const mode = RX_MODES[command];
  if (mode === undefined || data.length !== 1) return false;
  if (command >= FIRST_EXTRA_MODE && (target.acked & netFeature.CTRL_RX_EXTRA) === 0n) return false;
  target.filter.setMode(mode, data[0] !== 0);
  return true;
}

/** Two tables, each a u32 count and so many addresses: unicast, then multicast. */
function setTables(data: Uint8Array, filter: RxFilter): boolean {
  const unicast = tableAt(data, 0);
  const multicast = unicast && tableAt(data, 4 + unicast.length);
  if (multicast === undefined || 8 + unicast!.length + multicast.length !== data.length) return false;
  filter.setTables(unicast!, multicast);
  return true;
}

function tableAt(data: Uint8Array, offset: number): Uint8Array | undefined {
  if (offset + 4 > data.length) return undefined;
  const count = new DataView(data.buffer, data.byteOffset).getUint32(offset, true);
  const end = offset + 4 + count * MAC_BYTES;
  return end <= data.length ? data.subarray(offset + 4, end) : undefined;
}

function setAddress(data: Uint8Array, target: ControlTarget): boolean {
  if (data.length !== MAC_BYTES || (data[0]! & 1) !== 0) return false;
  target.setMac(data.slice());
  return true;
}

function setPairs(data: Uint8Array, target: ControlTarget): boolean {
  if (data.length !== 2) return false;
  const pairs = data[0]! | (data[1]! << 8);
  if (pairs < 1 || pairs > target.queuePairs) return false;
  target.setActivePairs(pairs);
  return true;
}
