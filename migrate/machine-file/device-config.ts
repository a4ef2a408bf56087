import { z } from "zod";
import { MAX_CONSOLE_NAME_BYTES, MAX_CONSOLE_PORTS } from "../../src/limits.ts";

/** A device's or a machine's name. */
export const name = z
  .string()
  .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/, "letters, digits, '-', '_' and '.', at most 64");
export const path = z.string().min(1).max(4096);
const queueSize = z.number().int().min(2).max(32768).default(128);
/** What the machine starts `vhu device run` with. Instead of it, the socket of a back-end that runs already. */
const socket = path.optional();

const blk = z
  .strictObject({
    name,
    type: z.literal("blk"),
    /** The raw image. */
    image: path.optional(),
    readonly: z.boolean().default(false),
    serial: z.string().max(20).optional(),
    socket,
    "queue-size": queueSize,
  })
  .superRefine(oneOf("image", "socket"));

const consolePort = z
  .strictObject({
    /** What the guest knows it by. */
    name: z
      .string()
      .regex(/^[^\p{Cc}/]*$/u, "no control characters and no slash")
      .refine((text) => Buffer.byteLength(text) <= MAX_CONSOLE_NAME_BYTES, "too long")
      .default(""),
    /** Gets what the guest prints. */
    file: path.optional(),
    /** Listens there for one client at a time. */
    socket: path.optional(),
    /** A symbolic link to the terminal. */
    pty: path.optional(),
    /** A console rather than a plain port; default: port 0 only. */
    console: z.boolean().optional(),
  })
  .superRefine(oneOf("file", "socket", "pty"));
export type ConsolePortConfig = z.infer<typeof consolePort>;

const console = z
  .strictObject({
    name,
    type: z.literal("console"),
    /** Where the guest's output goes. */
    file: path.optional(),
    /** Several ports by MULTIPORT, each with an end of its own. */
    port: z.array(consolePort).min(1).max(MAX_CONSOLE_PORTS).optional(),
    socket,
    "queue-size": queueSize,
  })
  .superRefine(oneOf("file", "port", "socket"))
  .superRefine((value, context) => {
    const messages = 2 * (value.port?.length ?? 0) + 1;
    if (messages <= value["queue-size"]) return;
    context.addIssue({ code: "custom", message: `${messages} control messages need a larger "queue-size"` });
  });

const fs = z.strictObject({
  name,
  type: z.literal("fs"),
  /** The socket of a virtiofsd that runs already. */
  socket: path,
  tag: z.string().min(1).max(36).default("vhu"),
  "queue-size": queueSize,
});

const rng = z.strictObject({
  name,
  type: z.literal("rng"),
  /** The rate limit: at most so many bytes in a period. */
  "max-bytes": z.number().int().min(1).optional(),
  "period-ms": z.number().int().min(1).default(1000),
  socket,
  "queue-size": queueSize,
});

const net = z
  .strictObject({
    name,
    type: z.literal("net"),
    /** The host's end: a tap, or a stream socket that listens or is listened at. */
    tap: z.string().min(1).max(15).optional(),
    stream: path.optional(),
    "stream-listen": path.optional(),
    mac: z
      .string()
      .regex(/^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$/, "six bytes in hexadecimal with colons between")
      .optional(),
    mtu: z.number().int().min(68).max(65535).optional(),
    socket,
    "queue-size": queueSize,
  })
  .superRefine(oneOf("tap", "stream", "stream-listen", "socket"));

export const deviceConfig = z.discriminatedUnion("type", [blk, console, fs, rng, net]);
export type DeviceConfig = z.infer<typeof deviceConfig>;

/** Exactly one of the fields is there. */
function oneOf(...fields: readonly string[]) {
  return (value: Readonly<Record<string, unknown>>, context: z.RefinementCtx) => {
    if (fields.filter((field) => value[field] !== undefined).length === 1) return;
    const all = fields.map((field) => `"${field}"`);
    const list =
      all.length === 2
        ? `either ${all.join(" or ")}`
        : `one of ${all.slice(0, -1).join(", ")} and ${all.at(-1)}`;
    context.addIssue({ code: "custom", message: `give ${list}` });
  };
}

/** Every file, socket and link that a device names. */
export function pathsOf(device: DeviceConfig): string[] {
  const ports = device.type === "console" ? (device.port ?? []) : [];
  return [device, ...ports].flatMap((from: Readonly<Record<string, unknown>>) =>
    PATH_FIELDS.map((field) => from[field]).filter((path) => typeof path === "string"),
  );
}

/** The same device with the paths that `absolute` makes of its own. */
export function withAbsolutePaths(device: DeviceConfig, absolute: (path: string) => string): DeviceConfig {
  const changed = (from: Readonly<Record<string, unknown>>) =>
    Object.fromEntries(
      PATH_FIELDS.flatMap((field) => {
        const value = from[field];
        return typeof value === "string" ? [[field, absolute(value)]] : [];
      }),
    );
  const ports = device.type === "console" ? device.port : undefined;
  return {
    ...device,
    ...changed(device),
    ...(ports === undefined ? {} : { port: ports.map((port) => ({ ...port, ...changed(port) })) }),
  } as DeviceConfig;
}

const PATH_FIELDS = ["image", "file", "socket", "pty", "stream", "stream-listen"] as const;
