/** What the two sides of a live migration say to each other, as JSON. All of it is checked when it comes. */
import { z } from "zod";
import { FormatError } from "../../src/errors.ts";
import {
  MAX_CPU_FEATURES,
  MAX_LIVE_DISKS,
  MAX_LIVE_RETRY_MS,
  MAX_LIVE_STREAMS,
  MAX_MEM_SLOTS,
  MAX_SNAPSHOT_REGION_BYTES,
} from "../../src/limits.ts";

/** The only version of the protocol. A receiver greets with what it speaks, a sender takes the highest common one. */
export const LIVE_VERSION = 1;

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));
const text = z.string().max(16_384);
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const version = z.number().int().min(1).max(65_535);
const stream = z.number().int().min(0).max(MAX_LIVE_STREAMS);

/** The receiver's first word on each connection. */
export const greeting = z.object({
  vhu: text,
  versions: z.object({ from: version, to: version }),
  /** Names this connection: what was recorded on another one is of no use. */
  nonce: hex(16),
  wants: z.enum(["token", "certificate", "nothing"]),
});

/** The sender's answer: a new migration, or one more connection of one that is there. */
export const hello = z.object({
  vhu: text,
  version,
  nonce: hex(16),
  open: z
    .object({
      streams: stream.min(1),
      retryMs: z.number().int().min(0).max(MAX_LIVE_RETRY_MS),
      secret: hex(16).optional(),
    })
    .optional(),
  attach: z.object({ session: hex(16), stream, lastReceived: count, proof: hex(32) }).optional(),
});

export const welcome = z.object({
  /** To a new migration: its name and the secret that its other connections prove. */
  session: hex(16).optional(),
  secret: hex(32).optional(),
  lastReceived: count,
});

export const refused = z.object({ code: text, message: text });

const region = z.looseObject({
  id: z.number().int().min(0).max(0xffff_ffff),
  guestAddress: count,
  sizeBytes: z.number().int().min(1).max(MAX_SNAPSHOT_REGION_BYTES).multipleOf(4096),
  name: text,
});
const check = z.object({ name: text, ok: z.boolean(), detail: text });
/** With `copy`, what a copy of it would be, for a receiver that does not have it. */
const disk = z.object({
  path: text,
  sizeBytes: count,
  marker: text.optional(),
  copy: z
    .object({
      format: z.enum(["raw", "qcow2"]),
      virtualBytes: count,
      usedBytes: count,
      readOnly: z.boolean(),
    })
    .optional(),
});

/** The messages of a session, in the order in which they come. */
export const liveMessage = z.discriminatedUnion("kind", [
  /** Sender: what is to come. */
  z.object({
    kind: z.literal("offer"),
    host: text,
    name: text,
    type: z.enum(["machine", "qemu"]),
    architecture: text,
    cpu: text,
    runState: z.enum(["running", "suspended"]),
    memoryBytes: count,
    machine: z.record(z.string(), z.unknown()),
    disks: z.array(disk).max(MAX_LIVE_DISKS),
    checkOnly: z.boolean(),
    /** Of a QEMU machine: what its processor has, by QEMU's names. */
    cpuFeatures: z.array(text).max(MAX_CPU_FEATURES).optional(),
  }),
  /** Receiver: what it found; bytes that it took for the measurement of the link. */
  z.object({
    kind: z.literal("checked"),
    host: text,
    checks: z.array(check).max(1024),
    ok: z.boolean(),
    /** Paths of the disks that it does not have, and would take: chunks of disks count them in this order. */
    copies: z.array(text).max(MAX_LIVE_DISKS).optional(),
  }),
  /** Where disks are copied. Sender: make their images. Receiver: parts of them may come. */
  z.object({ kind: z.literal("prepare-disks") }),
  z.object({ kind: z.literal("disks-prepared") }),
  /** Sender: begin to build the machine. Receiver: memory may come. */
  z.object({
    kind: z.literal("prepare"),
    // One memfd for each.
    memoryMap: z
      .array(region)
      .max(MAX_MEM_SLOTS)
      .refine((regions) => new Set(regions.map(({ id }) => id)).size === regions.length, "regions repeat"),
  }),
  z.object({ kind: z.literal("prepared") }),
  /** Sender: the machine stands still from here on. */
  z.object({ kind: z.literal("manifest"), manifest: z.record(z.string(), z.unknown()) }),
  /** Sender: all was sent: the last frame of each data stream, and the root over all of them. */
  z.object({
    kind: z.literal("end"),
    lastSequences: z.array(count).max(MAX_LIVE_STREAMS),
    root: hex(32),
    /** Of each disk that was copied: its parts. */
    diskChunks: z.array(count).max(MAX_LIVE_DISKS).optional(),
  }),
  /** Receiver: all is here, checked and loaded. The machine does not run yet. */
  z.object({ kind: z.literal("loaded"), loadMs: z.number(), memoryBytes: count }),
  /** Sender: it will never run here again; or it stays here. */
  z.object({ kind: z.literal("released") }),
  z.object({ kind: z.literal("aborted"), reason: text }),
  /** Receiver: it runs here; or never will; or did, and has ended. */
  z.object({ kind: z.literal("running"), resumeMs: z.number(), address: text }),
  z.object({ kind: z.literal("abandoned"), reason: text }),
  z.object({ kind: z.literal("lost"), reason: text }),
  /** Either: it is over, and why. */
  z.object({
    kind: z.literal("failed"),
    code: text,
    message: text,
    exitStatus: z.number().int().min(1).max(255),
  }),
]);

export type Greeting = z.infer<typeof greeting>;
export type Hello = z.infer<typeof hello>;
export type LiveMessage = z.infer<typeof liveMessage>;
export type Offer = Extract<LiveMessage, { kind: "offer" }>;

export function encodeMessage(
  value: Greeting | Hello | z.infer<typeof welcome> | z.infer<typeof refused> | LiveMessage,
): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** @throws FormatError that names the field */
export function decodeMessage<Type>(schema: z.ZodType<Type>, payload: Uint8Array, what: string): Type {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
  } catch (cause) {
    throw new FormatError(`the ${what} is not JSON`, what, -1, { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issues = result.error.issues.map((issue) => `${issue.path.join(".") || "it"}: ${issue.message}`);
  throw new FormatError(`the ${what} is invalid: ${issues.slice(0, 5).join("; ")}`, what);
}
