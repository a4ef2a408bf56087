/** What a recorded QEMU command line may hold to be run again. What is not here is refused by name. */

/** "path" must be in an allowed folder, "dropped" is vhu's own business in the new process, "kernel-line" goes to the guest's kernel. */
export type SimpleOption = "flag" | "kernel-line" | "path" | "dropped" | "dropped-flag" | readonly string[];

export const SIMPLE_OPTIONS: Readonly<Record<string, SimpleOption>> = {
  "-nodefaults": "flag",
  "-no-user-config": "flag",
  "-no-reboot": "flag",
  "-no-shutdown": "flag",
  "-enable-kvm": "flag",
  "-only-migratable": "flag",
  "-S": "dropped-flag",
  "-daemonize": "dropped-flag",
  "-qmp": "dropped",
  "-monitor": "dropped",
  "-mon": "dropped",
  "-pidfile": "dropped",
  "-incoming": "dropped",
  "-append": "kernel-line",
  "-kernel": "path",
  "-initrd": "path",
  "-dtb": "path",
  "-bios": "path",
  "-display": ["none"],
  "-parallel": ["none"],
  "-vga": ["none", "std", "virtio"],
  "-vnc": ["none"],
};

/** "path": an absolute path in an allowed folder. "plain": a number, a switch or the id of something on the command line. */
export type ValueKind = "plain" | "path" | RegExp | readonly string[];

export interface ListOption {
  /** By kind (driver, type): the keys it may have. */
  readonly kinds: Readonly<Record<string, Readonly<Record<string, ValueKind>>>>;
}

const all = (keys: string): Record<string, ValueKind> =>
  Object.fromEntries(keys.split(" ").map((key) => [key, "plain" as const]));

const PCI = all(
  "id bus addr multifunction bootindex iommu_platform ats packed event_idx indirect_desc disable-legacy disable-modern " +
    "vectors rombar num-queues queue-size queues mq page-per-vq acpi-index",
);
const PORT = { ...PCI, ...all("chassis port slot hotplug io-reserve mem-reserve pref64-reserve") };
const MEMORY = all("id size share prealloc merge dump host-nodes policy reserve hugetlb hugetlbsize seal");
const BLOCK = all(
  "node-name read-only auto-read-only discard detect-zeroes cache.direct cache.no-flush cache.writeback aio locking size",
);
const OVER_FILE = {
  ...BLOCK,
  ...all("file offset"),
  "file.driver": ["file", "host_device"] as const,
  "file.filename": "path" as const,
  ...Object.fromEntries(Object.keys(BLOCK).map((key) => [`file.${key}`, "plain" as const])),
};

export const LIST_OPTIONS: Readonly<Record<string, ListOption>> = {
  "-device": {
    kinds: {
      "vhost-user-blk-pci": { ...PCI, ...all("chardev config-wce") },
      "vhost-user-fs-pci": { ...PCI, ...all("chardev tag num-request-queues") },
      "virtio-net-pci": {
        ...PCI,
        ...all("netdev mac mtu host_mtu rx_queue_size tx_queue_size"),
        romfile: [""],
      },
      "virtio-blk-pci": {
        ...PCI,
        ...all("drive serial write-cache config-wce discard write-zeroes iothread share-rw"),
      },
      "virtio-scsi-pci": { ...PCI, ...all("iothread") },
      "scsi-hd": { ...PCI, ...all("drive serial lun scsi-id channel wwn device_id write-cache") },
      "virtio-rng-pci": { ...PCI, ...all("rng max-bytes period") },
      "virtio-serial-pci": { ...PCI, ...all("max_ports") },
      "virtio-balloon-pci": { ...PCI, ...all("free-page-reporting deflate-on-oom") },
      virtserialport: { ...PCI, ...all("chardev name nr") },
      virtconsole: { ...PCI, ...all("chardev name nr") },
      "isa-serial": all("id chardev index"),
      "isa-debug-exit": all("iobase iosize"),
      "vhost-user-scsi-pci": { ...PCI, ...all("chardev") },
      "scsi-cd": { ...PCI, ...all("drive serial lun scsi-id channel wwn device_id") },
      "ide-hd": all("id bus unit drive serial bootindex write-cache"),
      "ide-cd": all("id bus unit drive serial bootindex"),
      "pc-dimm": all("id memdev node slot addr"),
      vmgenid: all("id guid"),
      pvpanic: all("ioport"),
      "usb-kbd": PCI,
      "pci-bridge": { ...PORT, ...all("chassis_nr") },
      "pcie-root-port": PORT,
      "pcie-pci-bridge": PORT,
      "qemu-xhci": PCI,
      "usb-tablet": PCI,
    },
  },
  "-object": {
    kinds: {
      "memory-backend-memfd": MEMORY,
      "memory-backend-ram": MEMORY,
      "memory-backend-file": { ...MEMORY, "mem-path": "path", ...all("discard-data align") },
      iothread: all("id poll-max-ns"),
      "rng-builtin": all("id"),
      "rng-random": { ...all("id"), filename: ["/dev/urandom", "/dev/random"] },
    },
  },
  "-chardev": {
    kinds: {
      null: all("id"),
      pty: all("id"),
      // It is allocated at once.
      ringbuf: { ...all("id"), size: /^[0-9]{1,6}$/ },
      file: { ...all("id append"), path: "path" },
      socket: { ...all("id server wait reconnect reconnect-ms"), path: "path" },
    },
  },
  "-netdev": {
    kinds: {
      user: all("id net host dhcpstart dns hostname ipv4 ipv6 restrict"),
      "vhost-user": all("id chardev queues"),
      hubport: all("id hubid"),
    },
  },
  "-blockdev": {
    kinds: {
      file: { ...BLOCK, filename: "path" },
      host_device: { ...BLOCK, filename: "path" },
      raw: OVER_FILE,
      qcow2: { ...OVER_FILE, ...all("lazy-refcounts l2-cache-size cache-size") },
      "null-co": all("node-name size read-zeroes latency-ns read-only"),
    },
  },
};

/** A key that some device on the list may have. */
export function isDeviceKey(key: string): boolean {
  return Object.values(LIST_OPTIONS["-device"]?.kinds ?? {}).some(
    (kind) => Object.hasOwn(kind, key) && kind[key] === "plain",
  );
}

/** A CPU that was plugged in: its type has the model's name, which -cpu may have as well. */
const CPU_TYPE = /^[\w.-]+-(?:x86_64|i386|arm|aarch64)-cpu$/;
const CPU_KEYS = all("id socket-id die-id cluster-id module-id core-id thread-id");

/** The keys that an option of this kind may have; undefined for a kind that is not on the list. */
export function kindKeys(option: string, kind: string): Readonly<Record<string, ValueKind>> | undefined {
  const kinds = LIST_OPTIONS[option]?.kinds ?? {};
  if (Object.hasOwn(kinds, kind)) return kinds[kind];
  return option === "-device" && CPU_TYPE.test(kind) ? CPU_KEYS : undefined;
}

/** The properties that a recorded device of this type may have; undefined for a type that is not on the list. */
export function deviceKeys(type: string): ReadonlySet<string> | undefined {
  const keys = kindKeys("-device", type);
  return keys === undefined ? undefined : new Set(Object.keys(keys));
}

export function objectKeys(type: string): ReadonlySet<string> | undefined {
  const keys = kindKeys("-object", type);
  return keys === undefined ? undefined : new Set(Object.keys(keys));
}
