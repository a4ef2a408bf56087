/** What is known of a virtio device type (virtio 1.2, section 5). */
export interface DeviceType {
  readonly name: string;
  /** The virtio device ID. */
  readonly id: number;
  /** Queues that every device of this type has: what a front-end may use where MQ was not negotiated. */
  readonly minQueues: number;
}

const types = [
  { name: "net", id: 1, minQueues: 2 },
  { name: "blk", id: 2, minQueues: 1 },
  { name: "console", id: 3, minQueues: 2 },
  { name: "rng", id: 4, minQueues: 1 },
  { name: "scsi", id: 8, minQueues: 3 },
  { name: "gpu", id: 16, minQueues: 2 },
  { name: "input", id: 18, minQueues: 2 },
  { name: "vsock", id: 19, minQueues: 3 },
  { name: "crypto", id: 20, minQueues: 2 },
  { name: "sound", id: 25, minQueues: 4 },
  { name: "fs", id: 26, minQueues: 2 },
  { name: "pmem", id: 27, minQueues: 1 },
  { name: "i2c", id: 34, minQueues: 1 },
  { name: "gpio", id: 41, minQueues: 1 },
] as const satisfies readonly DeviceType[];

export type DeviceTypeName = (typeof types)[number]["name"];

/** The types by name. vhost-user itself tells no type: it comes from the machine file or from `--type`. */
export const deviceTypes = Object.fromEntries(types.map((type) => [type.name, type])) as Readonly<
  Record<DeviceTypeName, DeviceType>
>;

/** Feature bits that belong to a device type: 0-23 and 50-63 (virtio 1.2, section 2.2). */
export const DEVICE_TYPE_FEATURES = ((1n << 24n) - 1n) | (((1n << 14n) - 1n) << 50n);
