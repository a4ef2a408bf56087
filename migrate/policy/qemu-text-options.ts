/**
 * Options of QEMU that are lists of plain values: each key and the form of its value. No key here names a file, a program or an
 * fd, and what is not here is refused by name.
 */

export interface TextOption {
  /** Words without a key: the first one, or as many as there are. */
  readonly word?: RegExp;
  readonly keys: Readonly<Record<string, RegExp>>;
  /** Keys of which there are hundreds (a CPU's features), with values that can be no name. */
  readonly others?: { readonly key: RegExp; readonly value: RegExp };
}

const SWITCH = /^(?:on|off|true|false|yes|no|auto)$/;
const NUMBER = /^(?:-?[0-9]{1,20}|0x[0-9a-fA-F]{1,16})$/;
const SIZE = /^[0-9]{1,20}(?:\.[0-9]{1,10})?[KMGTkmgtBb]?$/;
/** An identifier of something else on the command line, or a name that QEMU knows. */
const NAME = /^[a-zA-Z0-9][\w.-]{0,63}$/;

const keys = (form: RegExp, names: string): Record<string, RegExp> =>
  Object.fromEntries(names.split(" ").map((name) => [name, form]));

const MACHINE: TextOption = {
  word: NAME,
  keys: {
    ...keys(NAME, "type memory-backend pflash0 pflash1 gic-version smbios-entry-point-type"),
    ...keys(
      SWITCH,
      "vmport hpet smm sata usb graphics pit pic i8042 acpi dump-guest-core mem-merge nvdimm hmat suppress-vmdesc smbus " +
        "fd-bootchk default-bus-bypass-iommu aux-ram-share virtualization secure highmem its iommu mte rtc isa-serial " +
        "auto-kernel-cmdline option-roms ioapic2 pcie",
    ),
    ...keys(SIZE, "max-ram-below-4g max-fw-size"),
    ...keys(NUMBER, "smp.cpus smp.cores smp.threads smp.sockets smp.dies smp.maxcpus"),
    "kernel-irqchip": /^(?:on|off|split)$/,
    accel: /^(?:tcg|kvm)(?::(?:tcg|kvm))*$/,
  },
};

export const TEXT_OPTIONS: Readonly<Record<string, TextOption>> = {
  "-machine": MACHINE,
  "-M": MACHINE,
  "-accel": {
    word: /^(?:tcg|kvm)$/,
    keys: {
      ...keys(SWITCH, "one-insn-per-tb split-wx"),
      ...keys(NUMBER, "dirty-ring-size eager-split-size notify-window kvm-shadow-mem"),
      accel: /^(?:tcg|kvm)$/,
      // MiB of code that is kept for each of its threads.
      "tb-size": /^[0-9]{1,4}$/,
      "kernel-irqchip": /^(?:on|off|split)$/,
      "notify-vmexit": /^(?:run|internal-error|disable)$/,
      thread: /^(?:single|multi)$/,
    },
  },
  "-cpu": {
    word: /^[+-]?[a-zA-Z0-9][\w.-]{0,63}$/,
    keys: {
      vendor: /^\w{12}$/,
      "model-id": /^[^/\\,=]{1,48}$/,
      ...keys(/^[\w ]{1,12}$/, "hv-vendor-id hv_vendor_id"),
    },
    others: { key: /^[a-zA-Z0-9][\w.-]{0,63}$/, value: new RegExp(`${SWITCH.source}|${NUMBER.source}`) },
  },
  "-smp": {
    word: NUMBER,
    keys: keys(NUMBER, "cpus cores threads sockets dies clusters modules drawers books maxcpus"),
  },
  "-m": { word: SIZE, keys: { ...keys(SIZE, "size maxmem"), slots: NUMBER } },
  "-numa": {
    word: /^(?:node|dist|cpu|hmat-lb|hmat-cache)$/,
    keys: {
      ...keys(
        NUMBER,
        "nodeid initiator src dst val node-id socket-id die-id cluster-id module-id core-id thread-id drawer-id book-id " +
          "target level line latency",
      ),
      ...keys(SIZE, "mem size bandwidth"),
      ...keys(NAME, "memdev type hierarchy data-type associativity policy"),
      cpus: /^[0-9]{1,6}(?:-[0-9]{1,6})?$/,
    },
  },
  "-name": {
    word: /^\P{Cc}{0,255}$/u,
    keys: { guest: /^\P{Cc}{0,255}$/u, process: /^[\w. -]{1,15}$/, "debug-threads": SWITCH },
  },
  "-uuid": { word: /^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/, keys: {} },
  "-rtc": {
    keys: { base: /^[\w:-]{1,32}$/, clock: /^(?:host|rt|vm)$/, driftfix: /^(?:none|slew)$/ },
  },
  "-boot": {
    word: /^[a-z]{1,8}$/,
    keys: {
      ...keys(/^[a-z]{1,8}$/, "order once"),
      ...keys(SWITCH, "menu strict"),
      ...keys(NUMBER, "splash-time reboot-timeout"),
    },
  },
  "-overcommit": { keys: { "mem-lock": /^(?:on|off|on-fault)$/, "cpu-pm": SWITCH } },
};

/** Of devices that a machine has anyway, or of those on the command line: what `-global` may set, beside the keys of `-device`. */
export const GLOBAL_PROPERTIES: ReadonlySet<string> = new Set([
  ...[
    "disable_s3",
    "disable_s4",
    "s4_val",
    "lost_tick_policy",
    "noreboot",
    "secure",
    "memory-hotplug-support",
  ],
  ...["acpi-pci-hotplug-with-bridge-support", "acpi-root-pci-hotplug", "smi-enabled", "pci-hole64-size"],
]);
export const GLOBAL_VALUE = /^[\w:+-]{0,64}$/;
