import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { MAX_NET_FRAME_BYTES, MAX_NET_QUEUE_BYTES } from "../../src/limits.ts";
import { UpgradeRegistry } from "../../src/state/mod.ts";
import type { QuotaState } from "../rate-limit/mod.ts";
import type { StateFields } from "../state/mod.ts";
import { ETHERNET_HEADER_BYTES, MAC_BYTES, MIN_MTU, NET_HEADER_BYTES } from "./config.ts";
import { formatMac } from "./mac-address.ts";
import type { PortState } from "./net-end.ts";
import { checkRxFilter, type RxFilterState } from "./rx-filter.ts";

/** Version of the sections below. */
export const NET_STATE_VERSION = 2;

const LENGTH_BYTES = 4;
/** A stream's buffer of the shortest frames nearly doubles with their virtio headers; a backlog may come before it. */
const MAX_FRAMES_BYTES = 4 * MAX_NET_QUEUE_BYTES;

/** What a network device carries from one process to the next. */
export interface NetState {
  /** As the driver may have set it. */
  readonly mac: Uint8Array;
  /** What it began with, and has again after a reset. */
  readonly configuredMac: Uint8Array;
  readonly mtu: number;
  /** Pairs that the driver uses, of as many as `ports` has. */
  readonly activePairs: number;
  readonly filter: RxFilterState;
  readonly receive: QuotaState;
  readonly transmit: QuotaState;
  readonly ports: readonly PortState[];
}

/** What the device at hand is. */
export interface NetIdentity {
  /** undefined: whatever the state says. */
  readonly mac: Uint8Array | undefined;
  readonly queuePairs: number;
}

/** The state as a flat object, which is what `checkNetState` reads. */
export function flattenNetState(state: NetState): Record<string, unknown> {
  const flat: Record<string, unknown> = {
    mac: state.mac.slice(),
    configuredMac: state.configuredMac.slice(),
    mtu: state.mtu,
    queuePairs: state.ports.length,
    activePairs: state.activePairs,
    ...state.filter,
    receiveUsedBytes: state.receive.usedBytes,
    receiveLeftMs: state.receive.leftMs,
    transmitUsedBytes: state.transmit.usedBytes,
    transmitLeftMs: state.transmit.leftMs,
  };
  for (const [pair, { frames, partial, outgoing, sentBytes }] of state.ports.entries()) {
    flat[`frames${pair}`] = joinFrames(frames);
    flat[`partial${pair}`] = partial;
    flat[`outgoing${pair}`] = outgoing;
    flat[`sentBytes${pair}`] = sentBytes;
  }
  return flat;
}

/** @throws FormatError, CompatibilityError when it is the state of another device */
export function checkNetState(fields: StateFields, own: NetIdentity): NetState {
  const mac = checkMac(fields, "mac");
  const configuredMac = checkMac(fields, "configuredMac");
  const queuePairs = fields.integer("queuePairs", 1, 0x8000);
  if (queuePairs !== own.queuePairs) {
    throw mismatch("queue pairs", queuePairs, own.queuePairs);
  }
  if (own.mac !== undefined && Buffer.compare(configuredMac, own.mac) !== 0) {
    throw mismatch("the MAC address", formatMac(configuredMac), formatMac(own.mac));
  }
  return {
    mac,
    configuredMac,
    mtu: fields.integer("mtu", MIN_MTU, 0xffff),
    activePairs: fields.integer("activePairs", 1, queuePairs),
    filter: checkRxFilter(fields),
    receive: checkQuota(fields, "receive"),
    transmit: checkQuota(fields, "transmit"),
    ports: Array.from({ length: queuePairs }, (_, pair) => checkPort(fields, pair)),
  };
}

function checkMac(fields: StateFields, name: string): Uint8Array {
  const mac = fields.bytes(name, MAC_BYTES);
  if (mac.length === MAC_BYTES) return mac;
  throw new FormatError(`a MAC address of ${mac.length} bytes`, fields.section);
}

/** The ways from older states to this version's. */
export function netUpgrades(): UpgradeRegistry {
  const registry = new UpgradeRegistry();
  registry.register({
    deviceType: "net",
    from: 1,
    to: 2,
    upgrade: (sections) => {
      // Which address it was configured with was not told; mostly it is the one that the driver uses.
      const old = Object(sections.get("state"));
      return new Map(sections).set("state", { ...old, configuredMac: old.mac });
    },
  });
  return registry;
}

function checkQuota(fields: StateFields, direction: string): QuotaState {
  return {
    usedBytes: fields.integer(`${direction}UsedBytes`, 0, Number.MAX_SAFE_INTEGER),
    leftMs: fields.integer(`${direction}LeftMs`, 0, Number.MAX_SAFE_INTEGER),
  };
}

function checkPort(fields: StateFields, pair: number): PortState {
  const frames = splitFrames(fields.bytes(`frames${pair}`, MAX_FRAMES_BYTES), fields.section);
  const partial = fields.bytes(`partial${pair}`, LENGTH_BYTES + MAX_NET_FRAME_BYTES);
  const outgoing = fields.bytes(`outgoing${pair}`, MAX_NET_FRAME_BYTES);
  if (outgoing.length > 0) checkFrameBytes(outgoing.length, fields.section);
  const most = outgoing.length === 0 ? 0 : LENGTH_BYTES + outgoing.length - NET_HEADER_BYTES - 1;
  return { frames, partial, outgoing, sentBytes: fields.integer(`sentBytes${pair}`, 0, most) };
}

/** Frames one after the other, a big-endian u32 length before each. What is too much is lost, as on a wire. */
function joinFrames(frames: readonly Uint8Array[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (const frame of frames) {
    total += LENGTH_BYTES + frame.length;
    if (total > MAX_FRAMES_BYTES) break;
    const length = new Uint8Array(LENGTH_BYTES);
    new DataView(length.buffer).setUint32(0, frame.length);
    parts.push(length, frame);
  }
  return new Uint8Array(Buffer.concat(parts));
}

function splitFrames(bytes: Uint8Array, section: string): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: Uint8Array[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    if (offset + LENGTH_BYTES > bytes.length) throw new FormatError("a frame is cut off", section);
    const length = view.getUint32(offset);
    checkFrameBytes(length, section);
    offset += LENGTH_BYTES;
    if (offset + length > bytes.length) throw new FormatError("a frame is cut off", section);
    frames.push(bytes.slice(offset, offset + length));
    offset += length;
  }
  return frames;
}

function checkFrameBytes(sizeBytes: number, section: string): void {
  if (sizeBytes >= NET_HEADER_BYTES + ETHERNET_HEADER_BYTES && sizeBytes <= MAX_NET_FRAME_BYTES) return;
  throw new FormatError(`a frame of ${sizeBytes} bytes`, section);
}

function mismatch(field: string, saved: string | number, own: string | number): CompatibilityError {
  return new CompatibilityError(
    `the state is of a network device with ${field} ${saved}, this one has ${own}: start the device with what was saved`,
    { details: { field, saved, own } },
  );
}
