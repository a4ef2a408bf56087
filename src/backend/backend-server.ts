import { type Outcome, PendingReply, type ReceivedFds, type RequestHandlers } from "../connection/mod.ts";
import { ProtocolError } from "../errors.ts";
import { MAX_SHMEM_REGIONS } from "../limits.ts";
import { UnixSocket } from "../sys/mod.ts";
import {
  type FrontendMessageName,
  logBaseReply,
  type Message,
  type MessageTable,
  type Payload,
} from "../wire/mod.ts";
import type { Backend, StateDirection } from "./backend.ts";
import type { Session } from "./session.ts";

/** SET_DEVICE_STATE_FD's reply: bits 0-7 are the result, bit 8 says that no fd comes back. */
const STATE_FD_OK_WITH_FD = 0n;
const STATE_FD_OK_USE_YOURS = 0x100n;
const STATE_FD_FAILED = 0x101n;

type Handler<N extends FrontendMessageName> = (
  backend: Backend,
  payload: Payload<N>,
  fds: ReceivedFds,
  server: BackendServer,
) => // biome-ignore lint/suspicious/noConfusingVoidType: most handlers are one call that returns nothing: no reply body
Outcome | void;

const value = (number: bigint | number): Outcome => ({ body: { value: BigInt(number) } });

const handlers: { readonly [N in FrontendMessageName]: Handler<N> } = {
  GET_FEATURES: (b) => value(b.getFeatures()),
  SET_FEATURES: (b, p) => b.setFeatures(p.value),
  SET_OWNER: (b) => b.setOwner(),
  RESET_OWNER: (b) => b.resetOwner(),
  SET_MEM_TABLE: (b, p, fds, server) => {
    fds.check("SET_MEM_TABLE", p.regions.length, p.regions.length);
    const owned = fds.takeAll();
    const mapped = b.setMemTable(p.regions.map((layout, i) => ({ layout, fd: owned[i]! })));
    return mapped && server.awaitConfirmation("SET_MEM_TABLE", { regions: mapped });
  },
  SET_LOG_BASE: (b, p, fds, server) => {
    b.setLogBase(p, fds.take("SET_LOG_BASE"));
    return { body: logBaseReply(server.table.dialect, p, 0n) };
  },
  SET_LOG_FD: (b, _p, fds) => b.setLogFd(fds.take("SET_LOG_FD")),
  SET_VRING_NUM: (b, p) => b.setVringNum(p.index, p.num),
  SET_VRING_ADDR: (b, p) => b.setVringAddr(p),
  SET_VRING_BASE: (b, p) => b.setVringBase(p.index, p.num),
  GET_VRING_BASE: (b, p) => ({ body: { index: p.index, num: b.getVringBase(p.index) } }),
  GET_VRING_BASE_SKIP_DRAIN: (b, p) => ({ body: { index: p.index, num: b.getVringBaseSkipDrain(p.index) } }),
  SET_VRING_KICK: (b, p, fds) => b.setVringKick(p.index, vringFd("SET_VRING_KICK", p.noFd, fds)),
  SET_VRING_CALL: (b, p, fds) => b.setVringCall(p.index, vringFd("SET_VRING_CALL", p.noFd, fds)),
  SET_VRING_ERR: (b, p, fds) => b.setVringErr(p.index, vringFd("SET_VRING_ERR", p.noFd, fds)),
  GET_PROTOCOL_FEATURES: (b) => value(b.getProtocolFeatures()),
  SET_PROTOCOL_FEATURES: (b, p) => b.setProtocolFeatures(p.value),
  GET_QUEUE_NUM: (b) => value(b.getQueueNum()),
  SET_VRING_ENABLE: (b, p) => b.setVringEnable(p.index, flag("SET_VRING_ENABLE", p.num)),
  SEND_RARP: (b, p) => b.sendRarp(macBytes(p.value)),
  NET_SET_MTU: (b, p) => b.netSetMtu(mtu(p.value)),
  SET_BACKEND_REQ_FD: (b, _p, fds) => b.setBackendReqFd(new UnixSocket(fds.take("SET_BACKEND_REQ_FD"))),
  IOTLB_MSG: (b, p) => {
    b.iotlbMsg(p);
    return value(0);
  },
  SET_VRING_ENDIAN: (b, p) => b.setVringEndian(p.index, flag("SET_VRING_ENDIAN", p.num)),
  GET_CONFIG: (b, p) => ({ body: { ...p, payload: b.getConfig(p) } }),
  SET_CONFIG: (b, p) => b.setConfig(p.offset, p.payload, p.flags === 1),
  CREATE_CRYPTO_SESSION: (b, p) => ({ body: { payload: b.createCryptoSession(p.payload) } }),
  CLOSE_CRYPTO_SESSION: (b, p) => b.closeCryptoSession(p.value),
  POSTCOPY_ADVISE: (b) => ({ body: {}, fds: [b.postcopyAdvise()] }),
  POSTCOPY_LISTEN: (b) => b.postcopyListen(),
  POSTCOPY_END: (b) => {
    b.postcopyEnd();
    return value(0);
  },
  GET_INFLIGHT_FD: (b, p) => {
    const { layout, fd } = b.getInflightFd(p);
    return { body: layout, fds: [fd] };
  },
  SET_INFLIGHT_FD: (b, p, fds) => b.setInflightFd({ layout: p, fd: fds.take("SET_INFLIGHT_FD") }),
  GPU_SET_SOCKET: (b, _p, fds) => b.gpuSetSocket(fds.take("GPU_SET_SOCKET")),
  RESET_DEVICE: (b) => b.resetDevice(),
  VRING_KICK: (b, p) => b.vringKick(p.index),
  GET_MAX_MEM_SLOTS: (b) => value(b.getMaxMemSlots()),
  ADD_MEM_REG: (b, p, fds, server) => {
    const mapped = b.addMemReg({ layout: p.region, fd: fds.take("ADD_MEM_REG") });
    return mapped && server.awaitConfirmation("ADD_MEM_REG", { region: mapped });
  },
  REM_MEM_REG: (b, p) => b.remMemReg(p.region),
  SET_STATUS: (b, p) => b.setStatus(Number(p.value & 0xffn)),
  GET_STATUS: (b) => value(b.getStatus()),
  GET_SHARED_OBJECT: (b, p) => ({ body: { payload: p.uuid }, fds: [b.getSharedObject(p.uuid)] }),
  SET_DEVICE_STATE_FD: (b, p, fds) => {
    const own = b.setDeviceStateFd(direction(p.direction), p.phase, fds.take("SET_DEVICE_STATE_FD"));
    return own === undefined
      ? { body: { value: STATE_FD_OK_USE_YOURS } }
      : { body: { value: STATE_FD_OK_WITH_FD }, fds: [own] };
  },
  CHECK_DEVICE_STATE: (b) => {
    const result = b.checkDeviceState();
    return result instanceof PendingReply ? result : value(result);
  },
  GET_SHMEM_CONFIG: (b) => ({ body: shmemConfig(b.getShmemConfig()) }),
  GET_SHARED_MEMORY_REGIONS: (b) => ({
    body: { regions: [...b.getShmemConfig()].map(([id, sizeBytes]) => ({ id, sizeBytes })) },
  }),
};

/** The bodies that say "failed", for messages that have such a form; the others have none. */
const failures: Partial<Record<string, unknown>> = {
  GET_CONFIG: { offset: 0, sizeBytes: 0, flags: 0, payload: new Uint8Array(0) },
  IOTLB_MSG: { value: 1n },
  POSTCOPY_END: { value: 1n },
  SET_DEVICE_STATE_FD: { value: STATE_FD_FAILED },
  CHECK_DEVICE_STATE: { value: 1n },
  // No fd in the reply is how these say that there is none.
  POSTCOPY_ADVISE: {},
  GET_SHARED_OBJECT: { payload: new Uint8Array(0) },
  GET_INFLIGHT_FD: { sizeBytes: 0, mmapOffset: 0, numQueues: 0, queueSize: 0 },
};

/** Turns messages into calls of a Backend and its results into replies: what a RequestServer asks for. */
export class BackendServer implements RequestHandlers {
  readonly messages: ReadonlyMap<number, Message>;
  #unconfirmed: Message | undefined;

  constructor(
    readonly backend: Backend,
    readonly session: Session,
    readonly table: MessageTable,
  ) {
    this.messages = table.frontend;
  }

  get replyAck(): boolean {
    return this.session.hasProtocol("REPLY_ACK");
  }

  checkLegal(message: Message): void {
    this.session.checkLegal(message);
  }

  handle(message: Message, payload: unknown, fds: ReceivedFds): Outcome {
    const handler = handlers[message.name as FrontendMessageName] as Handler<"SET_FEATURES">;
    return handler(this.backend, payload as Payload<"SET_FEATURES">, fds, this) ?? undefined;
  }

  failure(message: Message): unknown {
    return failures[message.name];
  }

  /** In postcopy the front-end confirms the addresses it got, by a u64 0 under the request's own number, before it goes on. */
  awaitConfirmation(name: "SET_MEM_TABLE" | "ADD_MEM_REG", body: unknown): Outcome {
    this.#unconfirmed = this.table.byName.frontend[name];
    return { body };
  }

  confirms(request: number, payload: Uint8Array): boolean {
    const message = this.#unconfirmed;
    if (message === undefined) return false;
    this.#unconfirmed = undefined;
    const expected =
      request === message.number && payload.length === 8 && payload.every((byte) => byte === 0);
    if (!expected) throw new ProtocolError(`is not confirmed, message ${request} came instead`, message.name);
    return true;
  }
}

function vringFd(request: string, noFd: boolean, fds: ReceivedFds) {
  fds.check(request, noFd ? 0 : 1, noFd ? 0 : 1);
  return noFd ? undefined : fds.take(request);
}

function flag(request: string, num: number): boolean {
  if (num > 1) throw new ProtocolError(`is ${num}, expected 0 or 1`, request, "num");
  return num === 1;
}

function direction(number: number): StateDirection {
  if (number > 1)
    throw new ProtocolError(
      `is ${number}, expected 0 (save) or 1 (load)`,
      "SET_DEVICE_STATE_FD",
      "direction",
    );
  return number === 0 ? "save" : "load";
}

function macBytes(packed: bigint): Uint8Array {
  return Uint8Array.from({ length: 6 }, (_, i) => Number((packed >> BigInt(8 * i)) & 0xffn));
}

/** virtio 1.2, 5.1.4.1: 68 to 65535. */
function mtu(packed: bigint): number {
  if (packed < 68n || packed > 65535n)
    throw new ProtocolError(`is ${packed}, expected 68 to 65535`, "NET_SET_MTU", "value");
  return Number(packed);
}

function shmemConfig(regions: ReadonlyMap<number, number>) {
  const sizes = Array.from({ length: MAX_SHMEM_REGIONS }, (_, id) => regions.get(id) ?? 0);
  return { count: sizes.filter((sizeBytes) => sizeBytes !== 0).length, sizes };
}
