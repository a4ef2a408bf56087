import { z } from "zod";
import { CompatibilityError } from "../../src/errors.ts";
import { backendRecord } from "../backends/mod.ts";

const size = z.number().int().min(0);

const disk = z.looseObject({
  /** QEMU's name of it: the device's id or path. */
  device: z.string(),
  path: z.string(),
  format: z.string(),
  sizeBytes: size,
  readOnly: z.boolean(),
  /** The format's own mark that it was not closed cleanly. */
  isDirty: z.boolean().optional(),
  /** Of the file, where it is one on this host: how a load finds out that it has changed. */
  inode: z.string().optional(),
  fileBytes: size.optional(),
  modifiedNs: z.string().optional(),
  /** QEMU's names of the drive and of its topmost node, where it has any. */
  drive: z.string().optional(),
  node: z.string().optional(),
  /** The files that it stands on, its own first: one of them is on the command line. */
  files: z.array(z.string()).optional(),
  /** The chardev of the back-end whose image it is: QEMU knows no node of it. */
  backend: z.string().optional(),
  /** That back-end is not vhu's own: its image cannot be kept as it is while the VM goes on. */
  isForeign: z.boolean().optional(),
  /** The VM went on over an overlay (`wentOnAt`), so the file is not written any more: a load must not, either. */
  frozen: z.boolean().optional(),
  wentOnAt: z.string().optional(),
  /** A copy beside the snapshot, and how it was when it was made: its content's digest, or the key that it is sealed with. */
  copy: z
    .looseObject({
      file: z.string(),
      fileBytes: size,
      modifiedNs: z.string(),
      digest: z.string().optional(),
      key: z
        .string()
        .regex(/^[A-Za-z0-9+/]{43}=$/)
        .optional(),
    })
    .optional(),
});

const machine = z.looseObject({
  kind: z.literal("qemu"),
  name: z.string(),
  /** Of QEMU, e.g. "10.0.2". It and others are missing where the snapshot was made of QEMU's own file. */
  version: z.string().optional(),
  package: z.string().optional(),
  /** The versioned type, e.g. "pc-q35-10.0". */
  machineType: z.string(),
  cpuType: z.string().optional(),
  cpuCount: size.optional(),
  memoryBytes: size.optional(),
  /** QEMU's own word, e.g. "running", "paused". */
  runState: z.string(),
  executable: z.string().optional(),
  /** Data: nothing is ever started from it as it stands. */
  commandLine: z.array(z.string()).optional(),
  /** What differs from the command line: arguments for what was plugged in, and ids of devices that were taken out. */
  added: z.array(z.string()).optional(),
  removed: z.array(z.string()).optional(),
  /** What these had been made of and is gone as well, by its option and id. */
  removedParts: z.array(z.looseObject({ option: z.string(), id: z.string() })).optional(),
  notRebuilt: z.array(z.string()).optional(),
  workingFolder: z.string().optional(),
  /** Where the monitor was that it was saved by. */
  monitor: z.string().optional(),
  virtioDevices: z.array(
    z.looseObject({
      type: z.string(),
      path: z.string(),
      features: z.array(z.string()),
      protocolFeatures: z.array(z.string()).optional(),
      /** Of a vhost-user front-end: the chardev, or for a network card the netdev, that it talks through. */
      chardev: z.string().optional(),
      netdev: z.string().optional(),
    }),
  ),
  /** Chardevs that are UNIX sockets: those of vhost-user back-ends among them. `listens`: QEMU does. */
  sockets: z.array(z.looseObject({ chardev: z.string(), path: z.string(), listens: z.boolean().optional() })),
  backends: z.array(backendRecord).optional(),
  disks: z.array(disk),
  /** What stood in front of the stream in a virsh save file: `virsh restore` needs it. */
  libvirt: z
    .looseObject({ xml: z.string(), cookie: z.string().optional(), wasRunning: z.boolean() })
    .optional(),
  /** What was done about the disks that the VM can write: "stop", "external", "overlay" or "include". */
  diskCare: z.string().optional(),
});

/** What the manifest of a snapshot says about a QEMU machine. */
export type QemuMachine = z.infer<typeof machine>;
/** One that was asked through its monitor: nothing is unknown. */
export type DescribedQemuMachine = QemuMachine & {
  readonly version: string;
  readonly package: string;
  readonly cpuType: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
};
export type QemuDisk = QemuMachine["disks"][number];

/** Whether a manifest's machine is one of QEMU's. */
export function isQemuMachine(json: unknown): boolean {
  return typeof json === "object" && json !== null && (json as { kind?: unknown }).kind === "qemu";
}

/** @throws CompatibilityError when it is another machine, or one of a form that is not known */
export function parseQemuMachine(json: unknown): QemuMachine {
  const result = machine.safeParse(json);
  if (result.success) return result.data;
  if (!isQemuMachine(json)) throw new CompatibilityError("the snapshot holds no QEMU machine");
  const [issue] = result.error.issues;
  throw new CompatibilityError(
    `the snapshot's QEMU machine is invalid at ${issue?.path.join(".")}: ${issue?.message}`,
  );
}
