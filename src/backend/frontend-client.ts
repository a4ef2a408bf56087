import { Connection, RequestChannel } from "../connection/mod.ts";
import { PeerError, StateError } from "../errors.ts";
import { type Logger, silentLogger } from "../logger.ts";
import type { EventLoop, Fd, UnixSocket } from "../sys/mod.ts";
import type { ExternalMap, GpuMap, Iotlb, Message, MessageTable, Mmap } from "../wire/mod.ts";
import { type NotificationName, Notifications } from "./notifications.ts";
import type { Session } from "./session.ts";
import { SharedMemoryMapper } from "./shared-memory-mapper.ts";

/**
 * Requests from the back-end to its front-end, over the channel that SET_BACKEND_REQ_FD gave.
 *
 * While the device is suspended it must not speak up by itself (spec): a config change is kept back until it wakes.
 */
export class FrontendClient implements Disposable {
  #suspended = true;
  #configChanged = false;
  readonly #mappers = new Map<number, SharedMemoryMapper>();
  readonly #notifications: Notifications;

  constructor(
    readonly channel: RequestChannel,
    loop: EventLoop,
    readonly session: Session,
    readonly table: MessageTable,
    logger: Logger = silentLogger,
  ) {
    // Whoever causes a notification cannot help it when the front-end does not listen any more: the log tells it.
    this.#notifications = new Notifications(channel, loop, (request, reason) =>
      logger.warn(`${request} could not be sent to the front-end: ${reason}`, { request }),
    );
  }

  /** A client over a socket, which it takes. @throws SyscallError when it is none */
  static over(
    socket: UnixSocket,
    loop: EventLoop,
    session: Session,
    table: MessageTable,
    logger: Logger,
  ): FrontendClient {
    try {
      return new FrontendClient(new RequestChannel(new Connection(socket)), loop, session, table, logger);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  /** Tells that the config space has changed; a front-end without CONFIG does not want to know. */
  configChange(): void {
    if (!this.session.hasProtocol("CONFIG")) return;
    if (this.#suspended) {
      this.#configChanged = true;
      return;
    }
    // Never with an acknowledgement: the front-end may be waiting for a reply of ours at this moment.
    this.#notify("CONFIG_CHANGE_MSG", {});
  }

  /** In-band notification of used buffers. */
  vringCall(index: number): void {
    if (!this.#suspended) this.#notify("VRING_CALL", { index, num: 0 });
  }

  /** In-band notification that a ring failed. */
  vringErr(index: number): void {
    if (!this.#suspended) this.#notify("VRING_ERR", { index, num: 0 });
  }

  /** Asks for an IOTLB entry, or tells of an access that was refused. */
  iotlbMsg(message: Iotlb): void {
    this.#notify("IOTLB_MSG", message);
  }

  /** Lets the front-end map `fd` as a queue's notification area; without an fd it is unmapped. */
  hostNotifier(index: number, area: { fd: Fd; sizeBytes: number; offset: number } | undefined): void {
    const payload = {
      index,
      noFd: area === undefined,
      sizeBytes: area?.sizeBytes ?? 0,
      offset: area?.offset ?? 0,
    };
    this.#send("VRING_HOST_NOTIFIER_MSG", payload, area === undefined ? [] : [area.fd]);
  }

  sharedObjectAdd(uuid: Uint8Array): void {
    this.#send("SHARED_OBJECT_ADD", { uuid });
  }

  sharedObjectRemove(uuid: Uint8Array): void {
    this.#send("SHARED_OBJECT_REMOVE", { uuid });
  }

  /** The dma-buf of an object that another device exports. @throws PeerError when there is none */
  sharedObjectLookup(uuid: Uint8Array): Fd {
    const answer = this.channel.call(this.#message("SHARED_OBJECT_LOOKUP"), { uuid });
    using fds = answer.fds;
    if (answer.reply.value !== 0n) throw new PeerError("the front-end knows no shared object with this UUID");
    return fds.take("SHARED_OBJECT_LOOKUP");
  }

  shmemMap(mapping: Mmap, fd: Fd): void {
    this.#send("SHMEM_MAP", mapping, [fd]);
  }

  shmemUnmap(mapping: Mmap): void {
    this.#send("SHMEM_UNMAP", mapping);
  }

  /** crosvm's own message. @throws StateError in another dialect */
  gpuMap(mapping: GpuMap, fd: Fd): void {
    this.#expectZero("GPU_MAP", this.channel.call(this.#message("GPU_MAP"), mapping, { fds: [fd] }));
  }

  /** crosvm's own message. @throws StateError in another dialect */
  externalMap(mapping: ExternalMap): void {
    this.#expectZero("EXTERNAL_MAP", this.channel.call(this.#message("EXTERNAL_MAP"), mapping));
  }

  /** The one mapper of a shared memory region. @throws StateError when it was taken before */
  takeSharedMemoryMapper(region: { readonly id: number; readonly sizeBytes: number }): SharedMemoryMapper {
    if (this.#mappers.has(region.id)) {
      throw new StateError(`the mapper of shared memory region ${region.id} was taken already`);
    }
    const mapper = new SharedMemoryMapper(this, region.id, region.sizeBytes);
    this.#mappers.set(region.id, mapper);
    return mapper;
  }

  /** The front-end drops all mappings when the device is reset. */
  forgetMappings(): void {
    for (const mapper of this.#mappers.values()) mapper.forgetAll();
  }

  suspend(): void {
    this.#suspended = true;
    // What still waits must not be sent now, and is void but for this: rings are stopped, misses are asked for anew.
    if (this.#notifications.clear().has("CONFIG_CHANGE_MSG")) this.#configChanged = true;
  }

  wake(): void {
    this.#suspended = false;
    if (!this.#configChanged) return;
    this.#configChanged = false;
    this.configChange();
  }

  [Symbol.dispose](): void {
    this.#notifications[Symbol.dispose]();
    this.channel[Symbol.dispose]();
  }

  #message<N extends keyof MessageTable["byName"]["backend"]>(
    name: N,
  ): NonNullable<MessageTable["byName"]["backend"][N]> {
    const message = this.table.byName.backend[name];
    if (message === undefined)
      throw new StateError(`the dialect "${this.table.dialect.name}" has no ${name}`);
    this.session.checkLegal(message);
    return message;
  }

  #send(
    name:
      | "VRING_HOST_NOTIFIER_MSG"
      | "SHARED_OBJECT_ADD"
      | "SHARED_OBJECT_REMOVE"
      | "SHMEM_MAP"
      | "SHMEM_UNMAP",
    payload: unknown,
    fds: readonly Fd[] = [],
  ): void {
    const message = this.#message(name) as unknown as Message<unknown, { value: bigint }>;
    // crosvm's forms of some messages are answered whether REPLY_ACK was negotiated or not.
    if (message.replyRule === "always") {
      this.#expectZero(name, this.channel.call(message, payload, { fds }));
      return;
    }
    // Asked each time: the channel may have come before SET_PROTOCOL_FEATURES.
    this.channel.replyAck = this.session.hasProtocol("REPLY_ACK");
    this.channel.send<unknown>(message, payload, { fds });
  }

  #notify(name: NotificationName, payload: object): void {
    this.#notifications.send(this.#message(name) as unknown as Message<unknown, unknown>, payload);
  }

  #expectZero(name: string, answer: { reply: { value: bigint }; fds: Disposable }): void {
    answer.fds[Symbol.dispose]();
    if (answer.reply.value !== 0n)
      throw new PeerError(`the front-end refused ${name} (it answered ${answer.reply.value})`);
  }
}
