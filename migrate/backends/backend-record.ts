import { z } from "zod";

/** What the manifest of a snapshot says about one of a QEMU machine's vhost-user back-ends. */
export const backendRecord = z.looseObject({
  /** QEMU's name of the connection. */
  chardev: z.string(),
  socket: z.string(),
  /** QEMU listens there, and the back-end connects. */
  connects: z.boolean().optional(),
  /** The device's type in vhost-user's words, e.g. "blk", "fs", "net". */
  type: z.string(),
  pid: z.number().int().optional(),
  executable: z.string().optional(),
  /** What the program says, where it is one that this host starts itself; and its file: "sha256:…". */
  version: z.string().optional(),
  build: z.string().optional(),
  /** Data, without secrets: nothing is ever started from it as it stands. */
  commandLine: z.array(z.string()).optional(),
  workingFolder: z.string().optional(),
  /** Virtio features that the guest has accepted, by name. */
  features: z.array(z.string()),
  /** Features of the protocol that QEMU and the back-end agreed on, while the guest's driver uses the device. */
  protocolFeatures: z.array(z.string()).optional(),
});

export type BackendRecord = z.infer<typeof backendRecord>;
