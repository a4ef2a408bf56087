import type { DeviceTypeName } from "../../src/frontend/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";

/** Feature bits by device type (virtio 1.3, section 5). */
const names: Partial<Record<DeviceTypeName, Readonly<Record<string, number>>>> = {
  net: {
    CSUM: 0,
    GUEST_CSUM: 1,
    CTRL_GUEST_OFFLOADS: 2,
    MTU: 3,
    MAC: 5,
    GUEST_TSO4: 7,
    GUEST_TSO6: 8,
    GUEST_ECN: 9,
    GUEST_UFO: 10,
    HOST_TSO4: 11,
    HOST_TSO6: 12,
    HOST_ECN: 13,
    HOST_UFO: 14,
    MRG_RXBUF: 15,
    STATUS: 16,
    CTRL_VQ: 17,
    CTRL_RX: 18,
    CTRL_VLAN: 19,
    CTRL_RX_EXTRA: 20,
    GUEST_ANNOUNCE: 21,
    MQ: 22,
    CTRL_MAC_ADDR: 23,
    HASH_TUNNEL: 51,
    VQ_NOTF_COAL: 52,
    NOTF_COAL: 53,
    GUEST_USO4: 54,
    GUEST_USO6: 55,
    HOST_USO: 56,
    HASH_REPORT: 57,
    GUEST_HDRLEN: 59,
    RSS: 60,
    RSC_EXT: 61,
    STANDBY: 62,
    SPEED_DUPLEX: 63,
  },
  blk: {
    SIZE_MAX: 1,
    SEG_MAX: 2,
    GEOMETRY: 4,
    RO: 5,
    BLK_SIZE: 6,
    FLUSH: 9,
    TOPOLOGY: 10,
    CONFIG_WCE: 11,
    MQ: 12,
    DISCARD: 13,
    WRITE_ZEROES: 14,
    LIFETIME: 15,
    SECURE_ERASE: 16,
    ZONED: 17,
  },
  console: { SIZE: 0, MULTIPORT: 1, EMERG_WRITE: 2 },
  fs: { NOTIFICATION: 0 },
};

/** The names of all feature bits that a device of this type can have. */
export function featureNames(type: DeviceTypeName | undefined): Readonly<Record<string, bigint>> {
  const own = Object.entries((type === undefined ? undefined : names[type]) ?? {});
  return { ...virtioFeature, ...Object.fromEntries(own.map(([name, bit]) => [name, 1n << BigInt(bit)])) };
}
