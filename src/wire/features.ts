/** Bits of GET_FEATURES and SET_FEATURES that are not a device type's own (virtio 1.3, section 6, and vhost). */
export const virtioFeature = {
  /** Virtio's legacy bit: the device notifies when a ring runs empty. */
  NOTIFY_ON_EMPTY: 1n << 24n,
  /** vhost: log writes to guest memory for migration. */
  LOG_ALL: 1n << 26n,
  ANY_LAYOUT: 1n << 27n,
  RING_INDIRECT_DESC: 1n << 28n,
  RING_EVENT_IDX: 1n << 29n,
  /** vhost-user: protocol features can be negotiated; no virtio driver ever sees it. */
  PROTOCOL_FEATURES: 1n << 30n,
  VERSION_1: 1n << 32n,
  /** Also called IOMMU_PLATFORM: ring addresses are IOVAs. */
  ACCESS_PLATFORM: 1n << 33n,
  RING_PACKED: 1n << 34n,
  IN_ORDER: 1n << 35n,
  ORDER_PLATFORM: 1n << 36n,
  SR_IOV: 1n << 37n,
  NOTIFICATION_DATA: 1n << 38n,
  NOTIF_CONFIG_DATA: 1n << 39n,
  RING_RESET: 1n << 40n,
  ADMIN_VQ: 1n << 41n,
} as const;

/** Bits of GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES (vhost-user.rst, "Protocol features"). */
export const protocolFeature = {
  MQ: 1n << 0n,
  LOG_SHMFD: 1n << 1n,
  RARP: 1n << 2n,
  REPLY_ACK: 1n << 3n,
  MTU: 1n << 4n,
  BACKEND_REQ: 1n << 5n,
  CROSS_ENDIAN: 1n << 6n,
  CRYPTO_SESSION: 1n << 7n,
  PAGEFAULT: 1n << 8n,
  CONFIG: 1n << 9n,
  BACKEND_SEND_FD: 1n << 10n,
  HOST_NOTIFIER: 1n << 11n,
  INFLIGHT_SHMFD: 1n << 12n,
  RESET_DEVICE: 1n << 13n,
  INBAND_NOTIFICATIONS: 1n << 14n,
  CONFIGURE_MEM_SLOTS: 1n << 15n,
  STATUS: 1n << 16n,
  XEN_MMAP: 1n << 17n,
  SHARED_OBJECT: 1n << 18n,
  DEVICE_STATE: 1n << 19n,
  GET_VRING_BASE_INFLIGHT: 1n << 20n,
  GPA_ADDRESSES: 1n << 21n,
  SHMEM: 1n << 22n,
  GET_VRING_BASE_SKIP_DRAIN: 1n << 23n,
} as const;

export type VirtioFeature = keyof typeof virtioFeature;
export type ProtocolFeature = keyof typeof protocolFeature;

/**
 * The names of a mask's bits, lowest bit first; "bit N" where `names` has none for it.
 *
 * @example describeFeatures(0x9n, protocolFeature) // ["MQ", "REPLY_ACK"]
 */
export function describeFeatures(mask: bigint, names: Readonly<Record<string, bigint>>): string[] {
  const nameOf = new Map(Object.entries(names).map(([name, bit]) => [bit, name]));
  const found: string[] = [];
  for (let bit = 0n; mask >> bit > 0n; bit++) {
    const single = 1n << bit;
    if ((mask & single) !== 0n) found.push(nameOf.get(single) ?? `bit ${bit}`);
  }
  return found;
}
