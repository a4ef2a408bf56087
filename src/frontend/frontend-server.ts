import {
  Connection,
  type Outcome,
  type ReceivedFds,
  type RequestHandlers,
  RequestServer,
  RestTimer,
} from "../connection/mod.ts";
import { CompatibilityError, ProtocolError, VhuError } from "../errors.ts";
import { type Logger, silentLogger } from "../logger.ts";
import { type EventLoop, type Fd, POLL, UnixSocket } from "../sys/mod.ts";
import type {
  BackendMessageName,
  ExternalMap,
  GpuMap,
  Iotlb,
  Message,
  MessageTable,
  Mmap,
  Payload,
} from "../wire/mod.ts";

/** What a VMM does with a back-end's requests. What it leaves out is refused. Fds stay the caller's. */
export interface BackendRequestHandler {
  configChange(): void;
  vringCall?(index: number): void;
  vringErr?(index: number): void;
  iotlbMsg?(message: Iotlb): void;
  hostNotifier?(index: number, area: { fd: Fd; sizeBytes: number; offset: number } | undefined): void;
  sharedObjectAdd?(uuid: Uint8Array): void;
  sharedObjectRemove?(uuid: Uint8Array): void;
  /** The object's dma-buf, to be closed by the caller. */
  sharedObjectLookup?(uuid: Uint8Array): Fd | undefined;
  shmemMap?(mapping: Mmap, fd: Fd): void;
  shmemUnmap?(mapping: Mmap): void;
  gpuMap?(mapping: GpuMap, fd: Fd): void;
  externalMap?(mapping: ExternalMap): void;
}

type Handler<N extends BackendMessageName> = (
  handler: BackendRequestHandler,
  payload: Payload<N>,
  fds: ReceivedFds,
) => // biome-ignore lint/suspicious/noConfusingVoidType: most handlers are one call that returns nothing: no reply body
Outcome | void;

const ok: Outcome = { body: { value: 0n } };

const handlers: { readonly [N in BackendMessageName]: Handler<N> } = {
  IOTLB_MSG: (h, p) => need(h.iotlbMsg, "IOTLB_MSG").call(h, p),
  CONFIG_CHANGE_MSG: (h) => h.configChange(),
  VRING_HOST_NOTIFIER_MSG: (h, p, fds) => {
    fds.check("VRING_HOST_NOTIFIER_MSG", p.noFd ? 0 : 1, p.noFd ? 0 : 1);
    const notify = need(h.hostNotifier, "VRING_HOST_NOTIFIER_MSG");
    if (p.noFd) return notify.call(h, p.index, undefined);
    using fd = fds.take("VRING_HOST_NOTIFIER_MSG");
    return notify.call(h, p.index, { fd, sizeBytes: p.sizeBytes, offset: p.offset });
  },
  VRING_CALL: (h, p) => need(h.vringCall, "VRING_CALL").call(h, p.index),
  VRING_ERR: (h, p) => need(h.vringErr, "VRING_ERR").call(h, p.index),
  SHARED_OBJECT_ADD: (h, p) => need(h.sharedObjectAdd, "SHARED_OBJECT_ADD").call(h, p.uuid),
  SHARED_OBJECT_REMOVE: (h, p) => need(h.sharedObjectRemove, "SHARED_OBJECT_REMOVE").call(h, p.uuid),
  SHARED_OBJECT_LOOKUP: (h, p) => {
    const fd = h.sharedObjectLookup?.(p.uuid);
    return fd === undefined ? { body: { value: 1n } } : { body: { value: 0n }, fds: [fd] };
  },
  SHMEM_MAP: (h, p, fds) => {
    using fd = fds.take("SHMEM_MAP");
    need(h.shmemMap, "SHMEM_MAP").call(h, p, fd);
  },
  SHMEM_UNMAP: (h, p) => need(h.shmemUnmap, "SHMEM_UNMAP").call(h, p),
  GPU_MAP: (h, p, fds) => {
    using fd = fds.take("GPU_MAP");
    need(h.gpuMap, "GPU_MAP").call(h, p, fd);
    return ok;
  },
  EXTERNAL_MAP: (h, p) => {
    need(h.externalMap, "EXTERNAL_MAP").call(h, p);
    return ok;
  },
};

function need<F>(method: F | undefined, request: string): F {
  if (method === undefined) throw new CompatibilityError(`this front-end does not serve ${request}`);
  return method;
}

/** Serves a back-end's requests on the channel that was made for them, driven by a loop. */
export class FrontendServer implements RequestHandlers, Disposable {
  readonly messages: ReadonlyMap<number, Message>;
  readonly #connection: Connection;
  readonly #server: RequestServer;
  readonly #restTimer: RestTimer;
  #closed = false;

  private constructor(
    socket: UnixSocket,
    readonly loop: EventLoop,
    readonly table: MessageTable,
    readonly handler: BackendRequestHandler,
    readonly protocolFeatures: bigint,
    readonly logger: Logger,
  ) {
    this.messages = table.backend;
    this.#connection = new Connection(socket);
    this.#server = new RequestServer(this.#connection, this, logger);
    this.#restTimer = new RestTimer(loop, this.#connection, () => this.#onReadable());
    loop.watch(socket.fd, POLL.IN, () => this.#onReadable());
  }

  /** Makes the channel. Returns the server and the back-end's end of it, for SET_BACKEND_REQ_FD. */
  static create(
    loop: EventLoop,
    table: MessageTable,
    handler: BackendRequestHandler,
    protocolFeatures: bigint,
    logger: Logger = silentLogger,
  ): { server: FrontendServer; backendEnd: UnixSocket } {
    const [ours, theirs] = UnixSocket.pair();
    return {
      server: new FrontendServer(ours, loop, table, handler, protocolFeatures, logger),
      backendEnd: theirs,
    };
  }

  get replyAck(): boolean {
    return (this.protocolFeatures & (this.table.protocolFeature.REPLY_ACK ?? 0n)) !== 0n;
  }

  checkLegal(message: Message): void {
    const { gate } = message;
    if (gate.space !== "protocol" || (this.protocolFeatures & gate.mask) === gate.mask) return;
    throw new ProtocolError("needs a protocol feature that was not negotiated", message.name);
  }

  handle(message: Message, payload: unknown, fds: ReceivedFds): Outcome {
    const handler = handlers[message.name as BackendMessageName] as Handler<"SHMEM_UNMAP">;
    const outcome = handler(this.handler, payload as Payload<"SHMEM_UNMAP">, fds) ?? undefined;
    // In some dialects the same message has a body for its answer.
    return outcome ?? (message.replyRule === "always" ? ok : undefined);
  }

  failure(message: Message): unknown {
    return message.reply === undefined ? undefined : { value: 1n };
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.loop.unwatch(this.#connection.socket.fd);
    this.#restTimer[Symbol.dispose]();
    this.#connection[Symbol.dispose]();
  }

  #onReadable(): void {
    try {
      const served = this.#server.serveOne();
      if (served === "closed") this[Symbol.dispose]();
      else if (served === "nothing") this.#restTimer.arm();
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.logger.error(`back-end request channel closed: ${error.message}`, { code: error.code });
      this[Symbol.dispose]();
    }
  }
}
