import { z } from "zod";

const operationKinds = ["save", "load", "send", "receive"] as const;
export type OperationKind = (typeof operationKinds)[number];

const processIdentity = z.object({
  pid: z.number().int().positive(),
  startTicks: z.string(),
  executable: z.string().optional(),
});

/** What is known at a phase. Lists grow with each phase; of the others, the newest counts. */
const facts = z.object({
  machine: z.string().optional(),
  earlierRunState: z.enum(["running", "suspended"]).optional(),
  /** The machine's own process: of a save the source's. */
  vmProcess: processIdentity.optional(),
  /** The address of what a load builds. */
  runsAt: z.string().optional(),
  /** Processes that this operation started. */
  started: z.array(processIdentity.extend({ role: z.string() })).optional(),
  /** Sockets that mean nothing once the operation has broken off. */
  sockets: z.array(z.string()).optional(),
  /** What the machine's disks go on over from a moment of the save on; to be taken back unless the snapshot is whole. */
  overlays: z
    .array(z.object({ path: z.string(), base: z.string(), node: z.string(), baseNode: z.string() }))
    .optional(),
  /** A send that copies disks: the machine may be left with the means of it. */
  copiesDisks: z.boolean().optional(),
  /** Disks that a receive makes: which files they are. */
  images: z.array(z.object({ path: z.string(), device: z.string(), inode: z.string() })).optional(),
  /** The root of a snapshot that is whole, under its name, and on disk. */
  root: z.string().optional(),
  /** What a hand-over between hosts has made durable; migrate/live knows its form. */
  handover: z.record(z.string(), z.unknown()).optional(),
});
export type OperationFacts = Readonly<z.infer<typeof facts>>;

/** The last two are missing in logs of the first versions. */
const host = z.object({
  bootId: z.string(),
  pidNamespace: z.string(),
  machineId: z.string().optional(),
  hostName: z.string().optional(),
});

const outcome = z.object({
  result: z.enum(["done", "failed", "cancelled", "recovered"]),
  message: z.string(),
});
export type OperationOutcome = Readonly<z.infer<typeof outcome>>;

/** One line of an operation's log. */
export const operationEntry = z.discriminatedUnion("entry", [
  z.object({
    entry: z.literal("begin"),
    version: z.literal(1),
    kind: z.enum(operationKinds),
    source: z.string(),
    target: z.string(),
    /** The vhu that does it. */
    owner: processIdentity,
    host,
    at: z.string(),
    facts,
  }),
  z.object({ entry: z.literal("phase"), phase: z.string(), at: z.string(), facts }),
  /** Another vhu has taken it up, to recover it. */
  z.object({
    entry: z.literal("taken-up"),
    owner: processIdentity,
    host,
    at: z.string(),
  }),
  z.object({ entry: z.literal("end"), at: z.string(), outcome }),
]);
export type OperationEntry = z.infer<typeof operationEntry>;
