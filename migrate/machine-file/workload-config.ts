import { z } from "zod";
import { type DeviceConfig, name } from "./device-config.ts";

/** Milliseconds between batches; 0: as fast as it goes. */
const pauseMs = z.number().int().min(0).max(60_000);

export const workloadConfig = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("blocks"),
    /** The blk device that is written to. */
    disk: name,
    /** A console that gets a line for each write that was acknowledged. */
    log: name.optional(),
    /** How many 4 KiB blocks are written over and over. */
    blocks: z.number().int().min(1).max(1_000_000).default(1024),
    "in-flight": z.number().int().min(1).max(64).default(8),
    "pause-ms": pauseMs.default(1),
  }),
  z.strictObject({
    kind: z.literal("files"),
    /** The fs device whose files are looked up, held open and read. */
    share: name,
    /** How many files to look up: file-0000 and on, in the root of the share. */
    lookups: z.number().int().min(1).max(100_000).default(1000),
    /** How many of them to hold open and read again and again. */
    open: z.number().int().min(1).max(1000).default(8),
    "pause-ms": pauseMs.default(5),
  }),
  z.strictObject({
    kind: z.literal("lines"),
    /** The console; numbered lines go out of each of its ports, and the same are expected to come in. */
    console: name,
    "pause-ms": pauseMs.default(1),
  }),
  z.strictObject({
    kind: z.literal("random"),
    /** The rng device. */
    source: name,
    /** What one request asks for. */
    bytes: z.number().int().min(1).max(65536).default(64),
    "in-flight": z.number().int().min(1).max(64).default(4),
    "pause-ms": pauseMs.default(1),
  }),
  z.strictObject({
    kind: z.literal("frames"),
    /** The net device; numbered frames go out, and those that come in are checked. */
    interface: name,
    "pause-ms": pauseMs.default(1),
  }),
]);
export type WorkloadConfig = z.infer<typeof workloadConfig>;

/** What is wrong with a workload beside these devices; undefined: nothing. */
export function workloadProblem(
  load: WorkloadConfig,
  devices: readonly DeviceConfig[],
): { readonly field: string; readonly message: string } | undefined {
  for (const { field, name, type } of needsOf(load)) {
    if (!devices.some((device) => device.name === name && device.type === type))
      return { field, message: `there is no ${type} device "${name}"` };
  }
  if (load.kind !== "blocks" && load.kind !== "random") return undefined;
  const [{ name: target }] = needsOf(load) as [Need];
  const size = devices.find((device) => device.name === target)!["queue-size"];
  const inFlight = load["in-flight"];
  // A block request has three descriptors.
  if (inFlight * (load.kind === "blocks" ? 3 : 1) > size)
    return {
      field: "in-flight",
      message: `${inFlight} requests in flight do not fit into a queue of ${size}`,
    };
  const log = devices.find((device) => load.kind === "blocks" && device.name === load.log);
  if (log?.type === "console" && log.port !== undefined)
    return { field: "log", message: `"${log.name}" has ports; a log needs a console without` };
  return undefined;
}

interface Need {
  readonly field: string;
  readonly name: string;
  readonly type: DeviceConfig["type"];
}

/** The devices of a workload: it has each of them for itself. */
export function needsOf(load: WorkloadConfig): readonly Need[] {
  switch (load.kind) {
    case "blocks": {
      const log: Need[] = load.log === undefined ? [] : [{ field: "log", name: load.log, type: "console" }];
      return [{ field: "disk", name: load.disk, type: "blk" }, ...log];
    }
    case "files":
      return [{ field: "share", name: load.share, type: "fs" }];
    case "lines":
      return [{ field: "console", name: load.console, type: "console" }];
    case "random":
      return [{ field: "source", name: load.source, type: "rng" }];
    case "frames":
      return [{ field: "interface", name: load.interface, type: "net" }];
  }
}
