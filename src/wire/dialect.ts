import { backendMessages } from "./backend-messages.ts";
import {
  crosvm2024BackendMessages,
  crosvm2024FrontendMessages,
  crosvmBackendMessages,
} from "./crosvm-messages.ts";
import { type ProtocolFeature, protocolFeature } from "./features.ts";
import { frontendMessages } from "./frontend-messages.ts";
import { type Message, noFds } from "./message.ts";
import type { BackendMessages, FrontendMessages } from "./messages.ts";
import { type Log, log } from "./payloads.ts";

/** Messages of crosvm's own, besides or instead of the spec's. */
export type Extension = "crosvm" | "crosvm-2024";

/**
 * In what a peer differs from the spec. It is chosen by an option and never guessed: bit 20, for one, has had three
 * meanings. Make another one from a named one: `{ ...dialects["crosvm-2024"], shmemFeature: 1n << 17n }`.
 */
export interface Dialect {
  readonly name: string;
  /** The protocol feature bit for shared memory regions: 22 in the spec, 21 and 20 before. */
  readonly shmemFeature: bigint;
  /** How a back-end answers SET_LOG_BASE. A front-end takes each of them, whatever its dialect. */
  readonly logBaseReply: "body" | "ack" | "empty";
  /** Whether REM_MEM_REG may bring an fd (to be closed). */
  readonly remMemRegFd: "allowed" | "refused";
  readonly extensions: readonly Extension[];
}

const spec: Dialect = {
  name: "spec",
  shmemFeature: protocolFeature.SHMEM,
  logBaseReply: "ack",
  remMemRegFd: "allowed",
  extensions: [],
};

export const dialects = {
  /** The newest spec; as QEMU and libvhost-user speak it. */
  spec,
  /** rust-vmm's vhost 0.16, also in virtiofsd: SHMEM is bit 21, SET_LOG_BASE is answered with its own body. */
  "rust-vmm-0.16": {
    ...spec,
    name: "rust-vmm-0.16",
    shmemFeature: 1n << 21n,
    logBaseReply: "body",
    remMemRegFd: "refused",
  },
  /** libvhost-user with the SHMEM patches from before the bit was settled. */
  "libvhost-user-shmem": { ...spec, name: "libvhost-user-shmem", shmemFeature: 1n << 20n },
  /** DPDK answers SET_LOG_BASE with no payload at all. */
  dpdk: { ...spec, name: "dpdk", logBaseReply: "empty" },
  /** crosvm since 2025-12: the spec, with GPU_MAP and EXTERNAL_MAP. */
  crosvm: { ...spec, name: "crosvm", extensions: ["crosvm"] },
  /** crosvm of 2024. Its shared-memory-regions bit was 31; other versions had 17 and 20. */
  "crosvm-2024": {
    ...spec,
    name: "crosvm-2024",
    shmemFeature: 1n << 31n,
    extensions: ["crosvm", "crosvm-2024"],
  },
} as const satisfies Readonly<Record<string, Dialect>>;

export type DialectName = keyof typeof dialects;

interface ExtensionRows {
  readonly frontend: Readonly<Record<string, Message>>;
  readonly backend: Readonly<Record<string, Message>>;
  /** Messages of the spec that these stand in for. */
  readonly without: readonly string[];
}

const extensionRows: Readonly<Record<Extension, ExtensionRows>> = {
  crosvm: { frontend: {}, backend: crosvmBackendMessages, without: [] },
  "crosvm-2024": {
    frontend: crosvm2024FrontendMessages,
    backend: crosvm2024BackendMessages,
    without: ["GET_SHMEM_CONFIG"],
  },
};

/** Messages that some dialects lack. */
type OptionalName = "GET_SHMEM_CONFIG" | "GET_SHARED_MEMORY_REGIONS" | "GPU_MAP" | "EXTERNAL_MAP";
type Named<T> = Readonly<Omit<T, OptionalName> & Partial<Pick<T, OptionalName & keyof T>>>;

/** The messages of one dialect, by number for what arrives and by name for what is sent. */
export interface MessageTable {
  readonly dialect: Dialect;
  readonly frontend: ReadonlyMap<number, Message>;
  readonly backend: ReadonlyMap<number, Message>;
  readonly byName: { readonly frontend: Named<FrontendMessages>; readonly backend: Named<BackendMessages> };
  /** The protocol features under the bits that they have in this dialect. */
  readonly protocolFeature: Readonly<Partial<Record<ProtocolFeature, bigint>>>;
}

/** Builds the messages that a dialect speaks. Do it once per connection or process, not once per message. */
export function tableFor(dialect: Dialect): MessageTable {
  const extensions = dialect.extensions.map((name) => extensionRows[name]);
  const without = new Set(extensions.flatMap((rows) => rows.without));
  const collect = (
    base: Readonly<Record<string, Message>>,
    added: readonly Readonly<Record<string, Message>>[],
  ) =>
    Object.entries(Object.assign({}, base, ...added) as Record<string, Message>)
      .filter(([name]) => !without.has(name))
      .map(([, message]) => inDialect(message, dialect));
  const frontend = collect(
    frontendMessages,
    extensions.map((rows) => rows.frontend),
  );
  const backend = collect(
    backendMessages,
    extensions.map((rows) => rows.backend),
  );
  return {
    dialect,
    frontend: new Map(frontend.map((message) => [message.number, message])),
    backend: new Map(backend.map((message) => [message.number, message])),
    byName: {
      frontend: nameIndex(frontend) as unknown as Named<FrontendMessages>,
      backend: nameIndex(backend) as unknown as Named<BackendMessages>,
    },
    protocolFeature: featuresOf(dialect),
  };
}

const nameIndex = (list: readonly Message[]): Readonly<Record<string, Message>> =>
  Object.freeze(Object.fromEntries(list.map((message) => [message.name, message])));

function inDialect(message: Message, dialect: Dialect): Message {
  const { gate } = message;
  if (gate.space === "protocol" && gate.mask === protocolFeature.SHMEM) {
    return { ...message, gate: { ...gate, mask: dialect.shmemFeature } };
  }
  if (message.name === "REM_MEM_REG" && dialect.remMemRegFd === "refused") return { ...message, fds: noFds };
  return message;
}

/** SHMEM takes its bit from whatever the spec has there today: a dialect cannot mean both. */
function featuresOf(dialect: Dialect): Readonly<Partial<Record<ProtocolFeature, bigint>>> {
  const others = Object.entries(protocolFeature).filter(
    ([name, mask]) => name !== "SHMEM" && mask !== dialect.shmemFeature,
  );
  return Object.freeze({ ...Object.fromEntries(others), SHMEM: dialect.shmemFeature });
}

/** The body with which a back-end of this dialect answers SET_LOG_BASE; `result` is 0 for success. */
export function logBaseReply(dialect: Dialect, request: Log, result: bigint): { payload: Uint8Array } {
  if (dialect.logBaseReply === "empty") return { payload: new Uint8Array(0) };
  if (dialect.logBaseReply === "body") return { payload: log.encode(request) };
  const payload = new Uint8Array(new ArrayBuffer(8));
  new DataView(payload.buffer).setBigUint64(0, result, true);
  return { payload };
}
