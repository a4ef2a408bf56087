import { NegotiationError, ProtocolError } from "../errors.ts";
import {
  describeFeatures,
  type Message,
  type ProtocolFeature,
  protocolFeature,
  virtioFeature,
} from "../wire/mod.ts";

/** Feature bits that the handler implements for every device. */
export const HANDLER_FEATURES =
  virtioFeature.LOG_ALL |
  virtioFeature.RING_INDIRECT_DESC |
  virtioFeature.RING_EVENT_IDX |
  virtioFeature.PROTOCOL_FEATURES |
  virtioFeature.VERSION_1 |
  virtioFeature.RING_PACKED;

/** Protocol features that the handler implements for every device. */
const HANDLER_PROTOCOL_FEATURES: readonly ProtocolFeature[] = [
  "MQ",
  "LOG_SHMFD",
  "REPLY_ACK",
  "BACKEND_REQ",
  "PAGEFAULT",
  "CONFIG",
  "BACKEND_SEND_FD",
  "INFLIGHT_SHMFD",
  "RESET_DEVICE",
  "INBAND_NOTIFICATIONS",
  "CONFIGURE_MEM_SLOTS",
  "STATUS",
  "DEVICE_STATE",
];

/**
 * What is offered for a device: its own protocol features and the handler's, under the bits that they have in the dialect
 * that is spoken. Bits of the device's that the spec does not name stay as they are.
 */
export function offeredProtocolFeatures(
  device: { readonly protocolFeatures: bigint },
  bits: Readonly<Partial<Record<ProtocolFeature, bigint>>>,
): bigint {
  let offered = HANDLER_PROTOCOL_FEATURES.reduce((mask, name) => mask | (bits[name] ?? 0n), 0n);
  let unnamed = device.protocolFeatures;
  for (const [name, bit] of Object.entries(protocolFeature)) {
    if ((device.protocolFeatures & bit) !== 0n) offered |= bits[name as ProtocolFeature] ?? 0n;
    unnamed &= ~bit;
  }
  return offered | unnamed;
}

/** What is said about features between one front-end and this back-end, and what it makes legal. */
export class Session {
  acked = 0n;
  protocolAcked = 0n;
  featuresSet = false;
  protocolFeaturesSet = false;

  /** @param protocolBits the protocol features under the bits they have in the dialect that is spoken */
  constructor(
    readonly offered: bigint,
    readonly protocolOffered: bigint,
    readonly protocolBits: Readonly<Partial<Record<ProtocolFeature, bigint>>> = protocolFeature,
  ) {}

  ack(features: bigint): void {
    refuseUnoffered(features, this.offered, virtioFeature, "SET_FEATURES");
    this.acked = features;
    this.featuresSet = true;
  }

  ackProtocol(features: bigint): void {
    refuseUnoffered(features, this.protocolOffered, this.protocolBits, "SET_PROTOCOL_FEATURES");
    this.protocolAcked = features;
    this.protocolFeaturesSet = true;
  }

  has(feature: keyof typeof virtioFeature): boolean {
    return (this.acked & virtioFeature[feature]) !== 0n;
  }

  hasProtocol(feature: ProtocolFeature): boolean {
    const bit = this.protocolBits[feature];
    return bit !== undefined && (this.protocolAcked & bit) !== 0n;
  }

  /**
   * True when protocol features were negotiated: then rings start disabled and wait for SET_VRING_ENABLE.
   * QEMU's net front-end enables rings before it acknowledges bit 30, but after SET_PROTOCOL_FEATURES (recorded).
   */
  get usesProtocolFeatures(): boolean {
    return this.protocolFeaturesSet || this.has("PROTOCOL_FEATURES");
  }

  /**
   * True when GET_VRING_BASE itself leaves what is in flight to the inflight buffer. Where SKIP_DRAIN was negotiated, too,
   * that message does, and GET_VRING_BASE drains.
   */
  get vringBaseSkipsDrain(): boolean {
    return this.hasProtocol("GET_VRING_BASE_INFLIGHT") && !this.hasProtocol("GET_VRING_BASE_SKIP_DRAIN");
  }

  /** True when rings run as soon as they are started. Before SET_FEATURES nobody knows. */
  get ringsStartEnabled(): boolean {
    return this.featuresSet && !this.usesProtocolFeatures;
  }

  /** @throws ProtocolError when the message needs a feature that was not offered or negotiated */
  checkLegal(message: Message): void {
    const { gate } = message;
    if (gate.space === "none") return;
    const isVirtio = gate.space === "virtio";
    const offered = isVirtio ? this.offered : this.protocolOffered;
    let have = gate.when === "offered" ? offered : isVirtio ? this.acked : this.protocolAcked;
    if (isVirtio && this.usesProtocolFeatures) have |= virtioFeature.PROTOCOL_FEATURES & offered;
    if ((have & gate.mask) === gate.mask) return;
    const names = describeFeatures(gate.mask & ~have, isVirtio ? virtioFeature : this.protocolBits).join(
      ", ",
    );
    throw new ProtocolError(`needs ${names}, which was not ${gate.when}`, message.name);
  }
}

function refuseUnoffered(
  features: bigint,
  offered: bigint,
  names: Readonly<Record<string, bigint>>,
  request: string,
) {
  const extra = features & ~offered;
  if (extra === 0n) return;
  throw new NegotiationError(
    `${request} asks for features that were not offered: ${describeFeatures(extra, names).join(", ")}`,
    { details: { features, offered } },
  );
}
