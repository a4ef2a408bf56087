import { expect, test } from "bun:test";
import { describeFeatures, protocolFeature, virtioFeature } from "../../src/wire/mod.ts";

const bitOf = (mask: bigint): number => mask.toString(2).length - 1;

test("protocol features are bits 0 to 23, each once", () => {
  expect(Object.values(protocolFeature).map(bitOf)).toEqual(Array.from({ length: 24 }, (_, bit) => bit));
  expect(bitOf(protocolFeature.DEVICE_STATE)).toBe(19);
  expect(bitOf(protocolFeature.SHMEM)).toBe(22);
});

test("virtio features have the bits of the spec, above 31 too", () => {
  const bits = Object.fromEntries(Object.entries(virtioFeature).map(([name, mask]) => [name, bitOf(mask)]));
  expect(bits).toEqual({
    NOTIFY_ON_EMPTY: 24,
    LOG_ALL: 26,
    ANY_LAYOUT: 27,
    RING_INDIRECT_DESC: 28,
    RING_EVENT_IDX: 29,
    PROTOCOL_FEATURES: 30,
    VERSION_1: 32,
    ACCESS_PLATFORM: 33,
    RING_PACKED: 34,
    IN_ORDER: 35,
    ORDER_PLATFORM: 36,
    SR_IOV: 37,
    NOTIFICATION_DATA: 38,
    NOTIF_CONFIG_DATA: 39,
    RING_RESET: 40,
    ADMIN_VQ: 41,
  });
});

test("masks of real peers are described", () => {
  // virtiofsd 1.13.2 and qemu-storage-daemon 10.0.2.
  expect(describeFeatures(0x8a42bn, protocolFeature)).toEqual([
    "MQ",
    "LOG_SHMFD",
    "REPLY_ACK",
    "BACKEND_REQ",
    "BACKEND_SEND_FD",
    "RESET_DEVICE",
    "CONFIGURE_MEM_SLOTS",
    "DEVICE_STATE",
  ]);
  expect(describeFeatures(0x1_4000_0046n, virtioFeature)).toEqual([
    "bit 1",
    "bit 2",
    "bit 6",
    "PROTOCOL_FEATURES",
    "VERSION_1",
  ]);
  expect(describeFeatures(0n, virtioFeature)).toEqual([]);
  expect(describeFeatures(1n << 63n, virtioFeature)).toEqual(["bit 63"]);
});
