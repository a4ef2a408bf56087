import { z } from "zod";

/** What a machine's control socket understands. Fds that travel with a message are named in the comments. */
export const controlRequest = z.discriminatedUnion("command", [
  z.strictObject({ command: z.literal("status") }),
  /** Answer: what the machine was built from. */
  z.strictObject({ command: z.literal("describe") }),
  /** `hold: "connection"`: the machine resumes by itself when the connection ends. */
  z.strictObject({ command: z.literal("suspend"), hold: z.enum(["connection", "until-resumed"]) }),
  z.strictObject({ command: z.literal("resume") }),
  z.strictObject({ command: z.literal("stop") }),
  z.strictObject({ command: z.literal("verify") }),
  /**
   * Answer: the description of a suspended machine. Fds: memory, machine state; and, where the machine knows what has changed
   * since the snapshot with the root `base`, those pages, a bit for each.
   */
  z.strictObject({ command: z.literal("export"), base: z.string().optional() }),
  /** The suspended machine is as in the snapshot with this root: from here on it counts what changes. Answer: whether it can. */
  z.strictObject({ command: z.literal("checkpoint"), root: z.string(), runCount: z.number() }),
  /**
   * From here on the machine counts for this connection what changes. Answer's fds: its memory; and, where the machine knows
   * what has changed since the snapshot with the root `base`, those pages, a bit for each.
   */
  z.strictObject({ command: z.literal("precopy-begin"), base: z.string().optional() }),
  /** Answer's fd: the pages that were written to since the last time, a bit for each. */
  z.strictObject({ command: z.literal("precopy-take") }),
  z.strictObject({ command: z.literal("precopy-end") }),
  /** Its workloads submit nothing for some percent of the time. */
  z.strictObject({ command: z.literal("throttle"), percent: z.number().int().min(0).max(99) }),
  /** The suspended machine is given up for another host: it does not resume, whoever asks, but by `reclaim`. */
  z.strictObject({ command: z.literal("release") }),
  z.strictObject({ command: z.literal("reclaim") }),
  /** Fd: the pipe. Answer's fd, if any: the back-end's own, to be used instead. */
  z.strictObject({
    command: z.literal("state-begin"),
    device: z.string(),
    direction: z.enum(["save", "load"]),
  }),
  z.strictObject({ command: z.literal("state-check"), device: z.string() }),
  /** Of a disk that the machine started. Answer's fd: a control connection to its back-end (migrate/control). */
  z.strictObject({ command: z.literal("device-control"), device: z.string() }),
  /** Only an incoming machine: its back-ends may be started. */
  z.strictObject({ command: z.literal("expect"), config: z.unknown() }),
  /** Only an incoming machine. Fds: memory, machine state. */
  z.strictObject({ command: z.literal("build"), config: z.unknown() }),
  z.strictObject({ command: z.literal("start") }),
  /** The machine is complete and stays as it is when the loader's connection ends; `resume` starts it. */
  z.strictObject({ command: z.literal("keep-prepared") }),
]);

export type ControlRequest = z.infer<typeof controlRequest>;

const counters = z.record(z.string(), z.number());
const device = z.object({
  name: z.string(),
  type: z.string(),
  pid: z.number(),
  spawned: z.boolean(),
  lost: z.boolean(),
});

export const machineStatus = z.object({
  name: z.string(),
  pid: z.number(),
  runState: z.enum(["incoming", "prepared", "running", "suspended"]),
  memoryBytes: z.number(),
  devices: z.array(device),
  workloads: z.array(z.object({ kind: z.string(), counters })),
});
export type MachineStatus = z.infer<typeof machineStatus>;

export const precopyBegun = z.object({ memoryBytes: z.number() });

export const machineOutline = z.object({ config: z.record(z.string(), z.unknown()) });

export const verifyReport = z.object({
  checked: z.number(),
  lost: z.number(),
  torn: z.number(),
  repeated: z.number(),
  failures: z.array(z.string()),
});

const exportedDevice = z.object({
  name: z.string(),
  type: z.string(),
  socket: z.string().optional(),
  backend: z.object({
    identity: z.string(),
    version: z.string().optional(),
    executable: z.string().optional(),
  }),
  features: z.string(),
  protocolFeatures: z.string(),
  queues: z.array(z.object({ index: z.number(), size: z.number(), base: z.number() })),
  config: z.string(),
  canMoveState: z.boolean(),
});

export const exportedMachine = z.object({
  config: z.record(z.string(), z.unknown()),
  memoryBytes: z.number(),
  /** For `checkpoint`: it is refused when the machine has run since. */
  runCount: z.number(),
  devices: z.array(exportedDevice),
});
export type ExportedMachine = z.infer<typeof exportedMachine>;

/** The client's number for the request, which the answer repeats. */
const id = z.number().int().optional();
export const checkpointAnswer = z.object({
  /** Why changes are not counted; absent where they are. */
  obstacle: z.string().optional(),
});

/** Every answer: a result, or what went wrong with the exit status that it stands for. */
export const controlAnswer = z.union([
  z.object({ id, ok: z.literal(true), result: z.unknown() }),
  z.object({
    id,
    ok: z.literal(false),
    error: z.object({ code: z.string(), message: z.string(), exitStatus: z.number() }),
  }),
]);
