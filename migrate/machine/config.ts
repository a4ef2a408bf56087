import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { FormatError, UsageError } from "../../src/errors.ts";

const name = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/, "letters, digits, '-', '_' and '.', at most 64");
const path = z.string().min(1).max(4096);
const queueSize = z.number().int().min(2).max(32768).default(128);

const blk = z.strictObject({
  name,
  type: z.literal("blk"),
  /** The raw image; the machine starts `vhu device run blk` for it. */
  image: path.optional(),
  readonly: z.boolean().default(false),
  serial: z.string().max(20).optional(),
  /** Instead of an image: the socket of a back-end that runs already. */
  socket: path.optional(),
  "queue-size": queueSize,
});

const console = z.strictObject({
  name,
  type: z.literal("console"),
  /** Where the guest's output goes; the machine starts `vhu device run console` for it. */
  file: path.optional(),
  socket: path.optional(),
  "queue-size": queueSize,
});

const fs = z.strictObject({
  name,
  type: z.literal("fs"),
  /** The socket of a virtiofsd that runs already. */
  socket: path,
  tag: z.string().min(1).max(36).default("vhu"),
  "queue-size": queueSize,
});

const device = z.discriminatedUnion("type", [blk, console, fs]).superRefine((value, context) => {
  const own = value.type === "blk" ? value.image : value.type === "console" ? value.file : undefined;
  if ((own === undefined) === (value.socket === undefined)) {
    const field = value.type === "blk" ? "image" : "file";
    context.addIssue({ code: "custom", message: `give either "${field}" or "socket"` });
  }
});

const workload = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("blocks"),
    /** The blk device that is written to. */
    disk: name,
    /** A console that gets a line for each write that was acknowledged. */
    log: name.optional(),
    /** How many 4 KiB blocks are written over and over. */
    blocks: z.number().int().min(1).max(1_000_000).default(1024),
    "in-flight": z.number().int().min(1).max(64).default(8),
    /** Milliseconds between batches; 0: as fast as it goes. */
    "pause-ms": z.number().int().min(0).max(60_000).default(1),
  }),
  z.strictObject({
    kind: z.literal("files"),
    /** The fs device whose files are looked up, held open and read. */
    share: name,
    /** How many files to look up: file-0000 and on, in the root of the share. */
    lookups: z.number().int().min(1).max(100_000).default(1000),
    /** How many of them to hold open and read again and again. */
    open: z.number().int().min(1).max(1000).default(8),
    "pause-ms": z.number().int().min(0).max(60_000).default(5),
  }),
]);

const machine = z
  .strictObject({
    name,
    /** Where the machine is controlled from. */
    socket: path,
    memory: z.strictObject({
      "size-mib": z
        .number()
        .int()
        .min(1)
        .max(1 << 20),
    }),
    device: z.array(device).max(64).default([]),
    workload: z.array(workload).max(64).default([]),
  })
  .superRefine((value, context) => {
    const names = value.device.map((d) => d.name);
    if (new Set(names).size !== names.length)
      context.addIssue({ code: "custom", message: "device names repeat", path: ["device"] });
    for (const [index, load] of value.workload.entries()) {
      const [target, type] = load.kind === "blocks" ? [load.disk, "blk"] : [load.share, "fs"];
      if (!value.device.some((d) => d.name === target && d.type === type)) {
        context.addIssue({
          code: "custom",
          message: `there is no ${type} device "${target}"`,
          path: ["workload", index],
        });
      }
      const disk = value.device.find((d) => d.name === target);
      // A request has three descriptors.
      if (load.kind === "blocks" && disk !== undefined && load["in-flight"] * 3 > disk["queue-size"]) {
        const message = `${load["in-flight"]} requests in flight do not fit into a queue of ${disk["queue-size"]}`;
        context.addIssue({ code: "custom", message, path: ["workload", index, "in-flight"] });
      }
      const log = load.kind === "blocks" ? load.log : undefined;
      if (log !== undefined && !value.device.some((d) => d.name === log && d.type === "console")) {
        context.addIssue({
          code: "custom",
          message: `there is no console "${log}"`,
          path: ["workload", index],
        });
      }
    }
  });

export type MachineConfig = z.infer<typeof machine>;
export type DeviceConfig = MachineConfig["device"][number];
export type WorkloadConfig = MachineConfig["workload"][number];

/** Reads a machine file (TOML). Relative paths are relative to it. @throws FormatError, UsageError */
export function readMachineFile(file: string): MachineConfig {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new UsageError(`cannot read the machine file ${file}: ${(cause as Error).message}`, { cause });
  }
  let parsed: unknown;
  try {
    parsed = Bun.TOML.parse(text);
  } catch (cause) {
    throw new FormatError(`${file} is not TOML: ${(cause as Error).message}`, "machine file", -1, { cause });
  }
  return absolutePaths(parseMachineConfig(parsed, `machine file ${file}`), dirname(resolve(file)));
}

/** Checks a machine's description from wherever it came. @throws FormatError with the field's path */
export function parseMachineConfig(value: unknown, section: string): MachineConfig {
  const result = machine.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.map(
    (issue) => `${issue.path.join(".") || "the file"}: ${issue.message}`,
  );
  throw new FormatError(issues.join("; "), section);
}

function absolutePaths(config: MachineConfig, folder: string): MachineConfig {
  const absolute = <T extends string | undefined>(value: T) =>
    (value === undefined ? value : resolve(folder, value)) as T;
  return {
    ...config,
    socket: absolute(config.socket),
    device: config.device.map((d) => {
      if (d.type === "blk") return { ...d, image: absolute(d.image), socket: absolute(d.socket) };
      if (d.type === "console") return { ...d, file: absolute(d.file), socket: absolute(d.socket) };
      return { ...d, socket: absolute(d.socket) };
    }),
  };
}
