/** The virtio network device's feature bits, config space and header (virtio 1.3, 5.1.3, 5.1.4 and 5.1.6). */

export const netFeature = {
  CSUM: 1n << 0n,
  GUEST_CSUM: 1n << 1n,
  MTU: 1n << 3n,
  MAC: 1n << 5n,
  GUEST_TSO4: 1n << 7n,
  GUEST_TSO6: 1n << 8n,
  HOST_TSO4: 1n << 11n,
  HOST_TSO6: 1n << 12n,
  MRG_RXBUF: 1n << 15n,
  STATUS: 1n << 16n,
  CTRL_VQ: 1n << 17n,
  CTRL_RX: 1n << 18n,
  CTRL_RX_EXTRA: 1n << 20n,
  GUEST_ANNOUNCE: 1n << 21n,
  MQ: 1n << 22n,
  CTRL_MAC_ADDR: 1n << 23n,
  GUEST_USO4: 1n << 54n,
  GUEST_USO6: 1n << 55n,
  HOST_USO: 1n << 56n,
} as const;

/** What the end of a device must be able to do before the device offers it. */
export const OFFLOAD_FEATURES =
  netFeature.CSUM |
  netFeature.GUEST_CSUM |
  netFeature.GUEST_TSO4 |
  netFeature.GUEST_TSO6 |
  netFeature.HOST_TSO4 |
  netFeature.HOST_TSO6 |
  netFeature.GUEST_USO4 |
  netFeature.GUEST_USO6 |
  netFeature.HOST_USO;

export const netStatus = { LINK_UP: 1, ANNOUNCE: 2 } as const;

/** Bytes of a MAC address. */
export const MAC_BYTES = 6;
/** Ethernet's header: two addresses and a type. */
export const ETHERNET_HEADER_BYTES = 14;

/**
 * struct virtio_net_hdr, with `num_buffers` as its last field, which VERSION_1 always has: u8 flags, u8 gso_type,
 * u16 hdr_len, u16 gso_size, u16 csum_start, u16 csum_offset, u16 num_buffers. All little-endian.
 */
export const NET_HEADER_BYTES = 12;
export const NUM_BUFFERS_OFFSET = 10;

/** The least MTU that may be announced (virtio 1.3, 5.1.4.1), and what Ethernet has. */
export const MIN_MTU = 68;
export const DEFAULT_MTU = 1500;

export interface NetConfig {
  readonly mac: Uint8Array;
  /** A mask of `netStatus`. */
  readonly status: number;
  readonly queuePairs: number;
  readonly mtu: number;
}

/** struct virtio_net_config up to the MTU. */
const NET_CONFIG_BYTES = 12;

/** The config space as the driver sees it. */
export function encodeNetConfig(config: NetConfig): Uint8Array {
  const bytes = new Uint8Array(NET_CONFIG_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(config.mac);
  view.setUint16(6, config.status, true);
  view.setUint16(8, config.queuePairs, true);
  view.setUint16(10, config.mtu, true);
  return bytes;
}
