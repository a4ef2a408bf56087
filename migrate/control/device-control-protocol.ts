import { z } from "zod";

/** What the control socket of `vhu device run` understands; JSON in the framing of a machine's control socket. */
export const deviceControlRequest = z.discriminatedUnion("command", [
  z.strictObject({ command: z.literal("status") }),
  /** `hold: "connection"`: the device goes on by itself when the connection ends. */
  z.strictObject({ command: z.literal("suspend"), hold: z.enum(["connection", "until-resumed"]) }),
  /** Ends a suspension "until-resumed". Another connection's hold stays. */
  z.strictObject({ command: z.literal("resume") }),
  /** The image has another size: the driver is told. */
  z.strictObject({ command: z.literal("resize") }),
  /** From now on it is known what of the image is written, for this connection alone and until it ends. */
  z.strictObject({ command: z.literal("track") }),
  /** What was written since the last time; while the device is suspended, that is all. */
  z.strictObject({ command: z.literal("changes") }),
  /** Fd of the answer: the image, for reading. It stands still only while the device is suspended. */
  z.strictObject({ command: z.literal("image") }),
  /** The parent process's alone. Fd: a connected socket, served from now on as if somebody had connected. No answer. */
  z.strictObject({ command: z.literal("attach") }),
]);
export type DeviceControlRequest = z.infer<typeof deviceControlRequest>;
/** Those that are answered with a status. */
export type DeviceStatusRequest = Exclude<
  DeviceControlRequest,
  { command: "image" } | { command: "track" } | { command: "changes" } | { command: "attach" }
>;

export const deviceStatus = z.object({
  type: z.string(),
  pid: z.number(),
  runState: z.enum(["running", "suspended"]),
  /** How many connections hold it suspended, e.g. copies under way. */
  holds: z.number(),
  frontendConnected: z.boolean(),
  image: z.object({ path: z.string(), capacityBytes: z.number(), readOnly: z.boolean() }).optional(),
});
export type DeviceStatus = z.infer<typeof deviceStatus>;

export const trackingAnswer = z.object({
  /** False where another connection has it. */
  tracks: z.boolean(),
});

export const changesAnswer = z.object({
  /** Bytes; undefined where that is not known, and all may have changed. */
  ranges: z.array(z.object({ offset: z.number(), sizeBytes: z.number() })).optional(),
});

/** Every answer: a result, or what went wrong with the exit status that it stands for. */
export const deviceControlAnswer = z.union([
  z.object({ ok: z.literal(true), result: z.unknown() }),
  z.object({
    ok: z.literal(false),
    error: z.object({ code: z.string(), message: z.string(), exitStatus: z.number() }),
  }),
]);
