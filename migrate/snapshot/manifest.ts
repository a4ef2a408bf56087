/** The JSON parts of a snapshot. They are validated when read, since a file may come from anybody, and when written. */
import type { z } from "zod";
import { FormatError, UsageError } from "../../src/errors.ts";
import {
  MAX_MEM_SLOTS,
  MAX_QUEUE_SIZE,
  MAX_SNAPSHOT_CHAIN,
  MAX_SNAPSHOT_DEVICES,
  MAX_SNAPSHOT_KEYS,
  MAX_SNAPSHOT_REGION_BYTES,
} from "../../src/limits.ts";
import { expectModest } from "./expect-modest.ts";
import { CIPHER_NAME } from "./file-cipher.ts";
import { upgradeHeader } from "./upgrades.ts";

/** Memory is saved in multiples of this. */
export const MEMORY_PAGE_BYTES = 4096;

export type SnapshotHeader = z.infer<Schemas["header"]>;
/** All that an encrypted file shows. */
export type SealedHeader = z.infer<Schemas["sealedHeader"]>;
export type SnapshotKeys = z.infer<Schemas["keys"]>;
export type SnapshotManifest = z.infer<Schemas["manifest"]>;
export type SnapshotDevice = SnapshotManifest["devices"][number];
export type SnapshotParent = z.infer<Schemas["parent"]>;
export type SnapshotRegion = z.infer<Schemas["memoryMap"]>["regions"][number];

type Schemas = ReturnType<typeof makeSchemas>;
let schemas: Schemas | undefined;

/** Of any version up to ours; what comes out is of ours. @throws FormatError */
export function validateHeader(json: Uint8Array, formatVersion: number): SnapshotHeader | SealedHeader {
  const { header, sealedHeader, jsonObject } = loadSchemas();
  const given = parse(jsonObject, json, "header", 16);
  if (formatVersion > 0 && given.cipher !== undefined) return check(sealedHeader, given, "header", 16);
  return check(header, upgradeHeader(given, formatVersion), "header", 16);
}

/** @throws FormatError */
export function decodeManifest(json: Uint8Array, offset: number): SnapshotManifest {
  return parse(loadSchemas().manifest, json, "manifest", offset);
}

/** @throws FormatError */
export function decodeMemoryMap(json: Uint8Array, offset: number): SnapshotRegion[] {
  return parse(loadSchemas().memoryMap, json, "memory map", offset).regions;
}

/** Parts that are JSON somewhere else than in a file. @throws FormatError that names the field */
export const parseHeader = (value: unknown): SnapshotHeader =>
  check(loadSchemas().header, value, "header", -1);
export const parseManifest = (value: unknown): SnapshotManifest =>
  check(loadSchemas().manifest, value, "manifest", -1);
export const parseMemoryMap = (value: unknown): readonly SnapshotRegion[] =>
  check(loadSchemas().memoryMap, value, "memory map", -1).regions;

/** The header that an encrypted file has in its manifest. @throws FormatError */
export function headerInManifest(manifest: SnapshotManifest, offset: number): SnapshotHeader {
  return check(loadSchemas().header, manifest.header, "header in the manifest", offset);
}

/** @throws FormatError */
export function decodeKeys(json: Uint8Array, offset: number): SnapshotKeys {
  return parse(loadSchemas().keys, json, "keys", offset);
}

/** @throws UsageError */
export function encodeKeys(keys: SnapshotKeys): Uint8Array {
  return encode(loadSchemas().keys, keys, "keys");
}

/** @throws FormatError */
export function decodeParent(json: Uint8Array, offset: number): SnapshotParent {
  return parse(loadSchemas().parent, json, "parent", offset);
}

/** @throws UsageError */
export function encodeParent(parent: SnapshotParent): Uint8Array {
  return encode(loadSchemas().parent, parent, "parent");
}

/** @throws UsageError */
export function encodeManifest(manifest: SnapshotManifest): Uint8Array {
  return encode(loadSchemas().manifest, manifest, "manifest");
}

/** @throws UsageError */
export function encodeMemoryMap(regions: readonly SnapshotRegion[]): Uint8Array {
  return encode(loadSchemas().memoryMap, { regions: [...regions] }, "memory map");
}

/** Keys that this version does not know are kept: a newer writer may say more. zod costs 40 ms, so it is loaded here. */
function makeSchemas() {
  const { z } = require("zod") as typeof import("zod");
  const u32 = z.number().int().min(0).max(0xffff_ffff);
  const size = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
  const header = z.looseObject({
    writer: z.looseObject({ name: z.string(), version: z.string() }),
    createdAt: z.string(),
    id: z.string(),
    runState: z.string().optional(),
    machine: z.looseObject({ name: z.string() }).optional(),
    vmm: z
      .looseObject({
        name: z.string(),
        version: z.string().optional(),
        commandLine: z.array(z.string()).optional(),
      })
      .optional(),
    host: z.looseObject({ kernel: z.string(), architecture: z.string(), cpu: z.string() }),
    labels: z.record(z.string(), z.string()),
  });
  const device = deviceSchema(z, u32, size);
  const manifest = z.looseObject({
    machine: z.record(z.string(), z.unknown()).optional(),
    devices: z
      .array(device)
      .max(MAX_SNAPSHOT_DEVICES)
      .refine((devices) => isUnique(devices.map(({ id }) => id)), "device ids repeat"),
    memory: z.looseObject({ totalBytes: size }),
  });
  const memoryMap = memoryMapSchema(z, u32, size);
  return {
    header,
    manifest,
    memoryMap,
    ...fileSchemas(z),
    jsonObject: z.record(z.string(), z.unknown()),
  };
}

function deviceSchema(z: typeof import("zod")["z"], u32: z.ZodNumber, size: z.ZodNumber) {
  const mask = z.string().regex(/^0x[0-9a-f]{1,16}$/);
  const queue = z.looseObject({
    index: u32,
    size: z.number().int().min(0).max(MAX_QUEUE_SIZE),
    base: u32,
  });
  return z.looseObject({
    id: u32,
    name: z.string(),
    type: z.string(),
    backend: z.looseObject({
      executable: z.string().optional(),
      version: z.string().optional(),
      identity: z.string(),
    }),
    socket: z.string().optional(),
    features: mask,
    protocolFeatures: mask,
    queues: z.array(queue),
    /** The config space in hexadecimal digits. */
    config: z.string().regex(/^([0-9a-f]{2})*$/),
    stateFormat: z.string(),
    stateBytes: size,
  });
}

/** What a file says of itself and its parent. */
function fileSchemas(z: typeof import("zod")["z"]) {
  const parent = z.looseObject({
    root: z.string().regex(/^[0-9a-f]{64}$/),
    id: z.string(),
    depth: z.number().int().min(1).max(MAX_SNAPSHOT_CHAIN),
    file: z.string(),
  });
  const sealedHeader = z.looseObject({ id: z.string(), cipher: z.literal(CIPHER_NAME) });
  const keys = z.looseObject({
    keys: z
      .array(
        z.looseObject({
          kind: z.enum(["recipients", "passphrase"]),
          count: z.number().int().min(1),
          age: z.base64(),
        }),
      )
      .min(1)
      .max(MAX_SNAPSHOT_KEYS),
  });
  return { parent, sealedHeader, keys };
}

function memoryMapSchema(z: typeof import("zod")["z"], u32: z.ZodNumber, size: z.ZodNumber) {
  const region = z.looseObject({
    id: u32,
    guestAddress: size,
    sizeBytes: z.number().int().min(1).max(MAX_SNAPSHOT_REGION_BYTES).multipleOf(MEMORY_PAGE_BYTES),
    name: z.string(),
  });
  const regions = z.array(region).max(MAX_MEM_SLOTS);
  return z.looseObject({
    regions: regions.refine((list) => isUnique(list.map(({ id }) => id)), "region ids repeat"),
  });
}

function isUnique(values: readonly number[]): boolean {
  return new Set(values).size === values.length;
}

function loadSchemas(): Schemas {
  schemas ??= makeSchemas();
  return schemas;
}

function parse<Type>(schema: z.ZodType<Type>, bytes: Uint8Array, section: string, offset: number): Type {
  expectModest(bytes, section, offset);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new FormatError(`the ${section} is not JSON`, section, offset, { cause });
  }
  return check(schema, value, section, offset);
}

function check<Type>(schema: z.ZodType<Type>, value: unknown, section: string, offset: number): Type {
  const result = schema.safeParse(value);
  if (!result.success)
    throw new FormatError(`the ${section} is invalid: ${issuesOf(result.error)}`, section, offset);
  return result.data;
}

function encode<Type>(schema: z.ZodType<Type>, value: Type, what: string): Uint8Array {
  const result = schema.safeParse(value);
  if (!result.success) throw new UsageError(`the ${what} is invalid: ${issuesOf(result.error)}`);
  return new TextEncoder().encode(JSON.stringify(value));
}

function issuesOf(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");
}
