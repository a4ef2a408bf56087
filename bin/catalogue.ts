import type { Command } from "commander";

/** A command as the help pages list it; its module is loaded only when it runs or its own help is asked for. */
export interface CatalogueEntry {
  /** "snapshot inspect", or "doctor" for a command without a noun. */
  readonly words: string;
  readonly summary: string;
  load(): Promise<(parent: Command) => void>;
}

/** What the nouns are, for `vhu --help`. */
export const nouns: Readonly<Record<string, string>> = {
  device: "serve vhost-user devices, and look at them",
  machine: "run native machines",
  migrate: "move machines: into files, and out of them",
  snapshot: "look into snapshot files",
};

/** Every command. To add one: an entry here, and bin/commands/<noun>-<verb>.ts. A new noun goes into `nouns`. */
export const catalogue: readonly CatalogueEntry[] = [
  {
    words: "demo",
    summary: "the main job, end to end, on a machine of its own",
    load: async () => (await import("./commands/demo.ts")).registerDemo,
  },
  {
    words: "doctor",
    summary: "can this host run vhu? what is missing, and how to get it",
    load: async () => (await import("./commands/doctor.ts")).registerDoctor,
  },
  {
    words: "device run",
    summary: "serve a device to a VMM, as a vhost-user back-end",
    load: async () => (await import("./commands/device-run.ts")).registerDeviceRun,
  },
  {
    words: "device probe",
    summary: "ask a vhost-user back-end what it is and what it can do",
    load: async () => (await import("./commands/device-probe.ts")).registerDeviceProbe,
  },
  {
    words: "device status",
    summary: "show what a back-end of vhu's does, by its control socket",
    load: async () => (await import("./commands/device-control.ts")).registerDeviceStatus,
  },
  {
    words: "device suspend",
    summary: "let a back-end of vhu's process no request until it is resumed",
    load: async () => (await import("./commands/device-control.ts")).registerDeviceSuspend,
  },
  {
    words: "device resume",
    summary: "let a suspended back-end go on",
    load: async () => (await import("./commands/device-control.ts")).registerDeviceResume,
  },
  {
    words: "device resize",
    summary: "tell the guest that its disk's image has another size",
    load: async () => (await import("./commands/device-control.ts")).registerDeviceResize,
  },
  {
    words: "device copy",
    summary: "copy a running disk's image as it is at one point in time",
    load: async () => (await import("./commands/device-copy.ts")).registerDeviceCopy,
  },
  {
    words: "snapshot inspect",
    summary: "show what is in a snapshot, and whether it can be loaded here",
    load: async () => (await import("./commands/snapshot-inspect.ts")).registerSnapshotInspect,
  },
  {
    words: "snapshot verify",
    summary: "check every byte of a snapshot against its checksums",
    load: async () => (await import("./commands/snapshot-verify.ts")).registerSnapshotVerify,
  },
  {
    words: "snapshot diff",
    summary: "show what differs between two snapshots",
    load: async () => (await import("./commands/snapshot-diff.ts")).registerSnapshotDiff,
  },
  {
    words: "snapshot stats",
    summary: "show what the bytes of a snapshot are made of",
    load: async () => (await import("./commands/snapshot-stats.ts")).registerSnapshotStats,
  },
  {
    words: "snapshot list",
    summary: "list the snapshots in a folder",
    load: async () => (await import("./commands/snapshot-list.ts")).registerSnapshotList,
  },
  {
    words: "snapshot extract",
    summary: "write memory or a device's state of a snapshot into a file of its own",
    load: async () => (await import("./commands/snapshot-extract.ts")).registerSnapshotExtract,
  },
  {
    words: "snapshot convert",
    summary:
      "write a snapshot anew: version, encryption; from and to directories, QEMU's and libvirt's files",
    load: async () => (await import("./commands/snapshot-convert.ts")).registerSnapshotConvert,
  },
  {
    words: "snapshot replace",
    summary: "write a snapshot anew, with another state for one device",
    load: async () => (await import("./commands/snapshot-replace.ts")).registerSnapshotReplace,
  },
  {
    words: "snapshot sign",
    summary: "write a snapshot with a signature",
    load: async () => (await import("./commands/snapshot-sign.ts")).registerSnapshotSign,
  },
  {
    words: "snapshot flatten",
    summary: "make a full snapshot of one that is based on others",
    load: async () => (await import("./commands/snapshot-flatten.ts")).registerSnapshotFlatten,
  },
  {
    words: "machine run",
    summary: "run a native machine",
    load: async () => (await import("./commands/machine-run.ts")).registerMachineRun,
  },
  {
    words: "machine status",
    summary: "show a machine, its devices and what its workload has done",
    load: async () => (await import("./commands/machine-control.ts")).registerMachineStatus,
  },
  {
    words: "machine suspend",
    summary: "stop a machine's devices and its workload, keeping everything",
    load: async () => (await import("./commands/machine-control.ts")).registerMachineSuspend,
  },
  {
    words: "machine resume",
    summary: "let a suspended machine go on",
    load: async () => (await import("./commands/machine-control.ts")).registerMachineResume,
  },
  {
    words: "machine verify",
    summary: "check everything that a machine's workload wrote, through its devices",
    load: async () => (await import("./commands/machine-control.ts")).registerMachineVerify,
  },
  {
    words: "machine stop",
    summary: "end a machine and the back-ends that it started",
    load: async () => (await import("./commands/machine-control.ts")).registerMachineStop,
  },
  {
    words: "migrate check",
    summary: "look whether a machine can be saved or sent, and say what is in the way",
    load: async () => (await import("./commands/migrate-check.ts")).registerMigrateCheck,
  },
  {
    words: "migrate save",
    summary: "save a machine, or one back-end's device state, into a snapshot",
    load: async () => (await import("./commands/migrate-save.ts")).registerMigrateSave,
  },
  {
    words: "migrate load",
    summary: "load a snapshot: the machine goes on where it was saved",
    load: async () => (await import("./commands/migrate-load.ts")).registerMigrateLoad,
  },
  {
    words: "migrate status",
    summary: "say what operations are under way, and how to go on with one that was interrupted",
    load: async () => (await import("./commands/migrate-status.ts")).registerMigrateStatus,
  },
  {
    words: "migrate list",
    summary: "list the operations of this user on this host",
    load: async () => (await import("./commands/migrate-list.ts")).registerMigrateList,
  },
  {
    words: "migrate cancel",
    summary: "stop an operation that is under way",
    load: async () => (await import("./commands/migrate-cancel.ts")).registerMigrateCancel,
  },
  {
    words: "migrate recover",
    summary: "clear up after an operation that was interrupted",
    load: async () => (await import("./commands/migrate-recover.ts")).registerMigrateRecover,
  },
  {
    words: "migrate send",
    summary: "move a running machine to another host",
    load: async () => (await import("./commands/migrate-send.ts")).registerMigrateSend,
  },
  {
    words: "migrate receive",
    summary: "take machines that other hosts send",
    load: async () => (await import("./commands/migrate-receive.ts")).registerMigrateReceive,
  },
];
