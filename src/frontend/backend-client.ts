import type { ReceivedFds, RequestChannel } from "../connection/mod.ts";
import { CompatibilityError, PeerError, ProtocolError } from "../errors.ts";
import type { RegionLayout } from "../memory/mod.ts";
import type { Fd } from "../sys/mod.ts";
import type {
  FrontendMessageName,
  FrontendMessages,
  Inflight,
  Log,
  MessageTable,
  Payload,
  Reply,
  VringAddr,
} from "../wire/mod.ts";

export interface SharedRegion {
  readonly layout: RegionLayout;
  readonly fd: Fd;
}

export interface InflightBuffer {
  readonly layout: Inflight;
  readonly fd: Fd;
}

/** SET_DEVICE_STATE_FD's reply: bits 0-7 are the result, bit 8 says that no fd came back. */
const STATE_FD_RESULT_MASK = 0xffn;
const STATE_FD_NO_FD = 0x100n;

/**
 * The front-end's side of the protocol, one method per message of the spec: each sends it and waits for its answer.
 * Fds in arguments stay the caller's, fds that are returned are the caller's.
 *
 * Every method throws PeerError when the back-end refuses, dies or does not answer in time.
 */
export class BackendClient implements Disposable {
  constructor(
    readonly channel: RequestChannel,
    readonly table: MessageTable,
  ) {}

  setOwner(): void {
    this.#send("SET_OWNER", {});
  }

  resetOwner(): void {
    this.#send("RESET_OWNER", {});
  }

  getFeatures(): bigint {
    return this.#call("GET_FEATURES", {}).value;
  }

  setFeatures(features: bigint): void {
    this.#send("SET_FEATURES", { value: features });
  }

  getProtocolFeatures(): bigint {
    return this.#call("GET_PROTOCOL_FEATURES", {}).value;
  }

  setProtocolFeatures(features: bigint): void {
    this.#send("SET_PROTOCOL_FEATURES", { value: features });
    this.channel.replyAck = (features & (this.table.protocolFeature.REPLY_ACK ?? 0n)) !== 0n;
  }

  getQueueNum(): number {
    return Number(this.#call("GET_QUEUE_NUM", {}).value);
  }

  setMemTable(regions: readonly SharedRegion[]): void {
    const fds = regions.map((region) => region.fd);
    this.#send("SET_MEM_TABLE", { regions: regions.map((region) => region.layout) }, fds);
  }

  getMaxMemSlots(): number {
    return Number(this.#call("GET_MAX_MEM_SLOTS", {}).value);
  }

  addMemReg(region: SharedRegion): void {
    this.#send("ADD_MEM_REG", { region: region.layout }, [region.fd]);
  }

  remMemReg(layout: RegionLayout): void {
    this.#send("REM_MEM_REG", { region: layout });
  }

  setLogBase(log: Log, fd: Fd): void {
    this.#call("SET_LOG_BASE", log, [fd]);
  }

  setVringNum(index: number, num: number): void {
    this.#send("SET_VRING_NUM", { index, num });
  }

  setVringAddr(address: VringAddr): void {
    this.#send("SET_VRING_ADDR", address);
  }

  setVringBase(index: number, base: number): void {
    this.#send("SET_VRING_BASE", { index, num: base });
  }

  getVringBase(index: number): number {
    return this.#ownRing("GET_VRING_BASE", index, this.#call("GET_VRING_BASE", { index, num: 0 }));
  }

  getVringBaseSkipDrain(index: number): number {
    const reply = this.#call("GET_VRING_BASE_SKIP_DRAIN", { index, num: 0 });
    return this.#ownRing("GET_VRING_BASE_SKIP_DRAIN", index, reply);
  }

  setVringKick(index: number, fd: Fd | undefined): void {
    this.#sendVringFd("SET_VRING_KICK", index, fd);
  }

  setVringCall(index: number, fd: Fd | undefined): void {
    this.#sendVringFd("SET_VRING_CALL", index, fd);
  }

  setVringErr(index: number, fd: Fd | undefined): void {
    this.#sendVringFd("SET_VRING_ERR", index, fd);
  }

  setVringEnable(index: number, enabled: boolean): void {
    this.#send("SET_VRING_ENABLE", { index, num: enabled ? 1 : 0 });
  }

  /** In-band kick. */
  vringKick(index: number): void {
    this.#send("VRING_KICK", { index, num: 0 });
  }

  setBackendReqFd(fd: Fd): void {
    this.#send("SET_BACKEND_REQ_FD", {}, [fd]);
  }

  /** @throws PeerError when the back-end cannot read its config space there */
  getConfig(offset: number, sizeBytes: number): Uint8Array {
    const request = { offset, sizeBytes, flags: 0, payload: new Uint8Array(sizeBytes) };
    const reply = this.#call("GET_CONFIG", request);
    if (reply.sizeBytes === 0)
      throw new PeerError(`the back-end has no config bytes ${offset} to ${offset + sizeBytes}`);
    if (reply.sizeBytes !== sizeBytes || reply.offset !== offset) {
      throw new ProtocolError(`answers for ${reply.sizeBytes} bytes at ${reply.offset}`, "GET_CONFIG");
    }
    return reply.payload.slice();
  }

  setConfig(offset: number, bytes: Uint8Array): void {
    this.#send("SET_CONFIG", { offset, sizeBytes: bytes.length, flags: 0, payload: bytes });
  }

  getInflightFd(numQueues: number, queueSize: number): InflightBuffer {
    const request = { sizeBytes: 0, mmapOffset: 0, numQueues, queueSize };
    const { reply, fds } = this.#callWithFds("GET_INFLIGHT_FD", request);
    using owned = fds;
    if (reply.sizeBytes === 0) throw new PeerError("the back-end gave no inflight buffer");
    return { layout: reply, fd: owned.take("GET_INFLIGHT_FD") };
  }

  setInflightFd(inflight: InflightBuffer): void {
    this.#send("SET_INFLIGHT_FD", inflight.layout, [inflight.fd]);
  }

  resetDevice(): void {
    this.#send("RESET_DEVICE", {});
  }

  setStatus(status: number): void {
    this.#send("SET_STATUS", { value: BigInt(status) });
  }

  getStatus(): number {
    return Number(this.#call("GET_STATUS", {}).value);
  }

  netSetMtu(mtu: number): void {
    this.#send("NET_SET_MTU", { value: BigInt(mtu) });
  }

  /** `mac` has 6 bytes. */
  sendRarp(mac: Uint8Array): void {
    const value = mac.reduceRight((packed, byte) => (packed << 8n) | BigInt(byte), 0n);
    this.#send("SEND_RARP", { value });
  }

  iotlbMsg(message: Payload<"IOTLB_MSG">): void {
    const { value } = this.#call("IOTLB_MSG", message);
    if (value !== 0n) throw new PeerError(`the back-end refused IOTLB_MSG (it answered ${value})`);
  }

  /** The dma-buf of an object that the back-end exports. */
  getSharedObject(uuid: Uint8Array): Fd {
    const { fds } = this.#callWithFds("GET_SHARED_OBJECT", { uuid });
    using owned = fds;
    if (owned.count === 0) throw new PeerError("the back-end exports no shared object with this UUID");
    return owned.take("GET_SHARED_OBJECT");
  }

  /** Sizes of the shared memory regions by shmid; the message is the dialect's. */
  getShmemConfig(): ReadonlyMap<number, number> {
    if (this.table.byName.frontend.GET_SHARED_MEMORY_REGIONS !== undefined) {
      const { regions } = this.#call("GET_SHARED_MEMORY_REGIONS", {});
      return new Map(regions.map(({ id, sizeBytes }) => [id, sizeBytes]));
    }
    const { sizes } = this.#call("GET_SHMEM_CONFIG", {});
    return new Map([...sizes.entries()].filter(([, sizeBytes]) => sizeBytes !== 0));
  }

  /** A userfaultfd of the back-end's process. */
  postcopyAdvise(): Fd {
    const { fds } = this.#callWithFds("POSTCOPY_ADVISE", {});
    using owned = fds;
    if (owned.count === 0) throw new PeerError("the back-end gave no userfaultfd: it cannot do postcopy");
    return owned.take("POSTCOPY_ADVISE");
  }

  postcopyListen(): void {
    this.#send("POSTCOPY_LISTEN", {});
  }

  postcopyEnd(): void {
    this.#call("POSTCOPY_END", {});
  }

  /**
   * Begins a device-state transfer over `fd`, of which the caller must then close its copy: the end of the stream is seen
   * only once every copy of the writing end is closed. Returns the back-end's own fd when that is to be used instead.
   */
  setDeviceStateFd(direction: "save" | "load", fd: Fd): Fd | undefined {
    const request = { direction: direction === "save" ? 0 : 1, phase: 0 };
    const { reply, fds } = this.#callWithFds("SET_DEVICE_STATE_FD", request, [fd]);
    using owned = fds;
    const result = reply.value & STATE_FD_RESULT_MASK;
    if (result !== 0n) {
      throw new PeerError(`the back-end refused to ${direction} its device state (error ${result})`, {
        details: { result },
      });
    }
    const noFd = (reply.value & STATE_FD_NO_FD) !== 0n;
    owned.check("SET_DEVICE_STATE_FD (reply)", noFd ? 0 : 1, noFd ? 0 : 1);
    return noFd ? undefined : owned.take("SET_DEVICE_STATE_FD");
  }

  /** As `checkDeviceState`, in line: the thread waits, and the channel's `whileWaiting` runs meanwhile. */
  checkDeviceStateInLine(timeoutMs: number): void {
    const answer = this.channel.call(this.#message("CHECK_DEVICE_STATE"), {}, { timeoutMs });
    answer.fds[Symbol.dispose]();
    requireProcessed(answer.reply.value);
  }

  /** Waits for the back-end's verdict on a transfer. @throws PeerError when it was not processed in full */
  async checkDeviceState(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const message = this.#message("CHECK_DEVICE_STATE");
    const { reply, fds } = await this.channel.callAsync(message, {}, { timeoutMs, signal });
    fds[Symbol.dispose]();
    requireProcessed(reply.value);
  }

  [Symbol.dispose](): void {
    this.channel[Symbol.dispose]();
  }

  #message<N extends FrontendMessageName>(name: N): FrontendMessages[N] {
    const message = this.table.byName.frontend[name];
    if (message === undefined)
      throw new CompatibilityError(`the dialect "${this.table.dialect.name}" has no ${name}`);
    return message as FrontendMessages[N];
  }

  #send<N extends FrontendMessageName>(name: N, payload: Payload<N>, fds: readonly Fd[] = []): void {
    this.channel.send<unknown>(this.#message(name), payload, { fds });
  }

  #call<N extends FrontendMessageName>(name: N, payload: Payload<N>, fds: readonly Fd[] = []): Reply<N> {
    const answer = this.#callWithFds(name, payload, fds);
    answer.fds[Symbol.dispose]();
    return answer.reply;
  }

  #callWithFds<N extends FrontendMessageName>(
    name: N,
    payload: Payload<N>,
    fds: readonly Fd[] = [],
  ): { reply: Reply<N>; fds: ReceivedFds } {
    const answer = this.channel.call<unknown, unknown>(this.#message(name), payload, { fds });
    return answer as { reply: Reply<N>; fds: ReceivedFds };
  }

  #sendVringFd(
    name: "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR",
    index: number,
    fd: Fd | undefined,
  ): void {
    this.#send(name, { index, noFd: fd === undefined }, fd === undefined ? [] : [fd]);
  }

  #ownRing(request: string, index: number, reply: { index: number; num: number }): number {
    if (reply.index === index) return reply.num;
    throw new ProtocolError(`answers for ring ${reply.index} instead of ${index}`, request, "index");
  }
}

function requireProcessed(answer: bigint): void {
  if (answer === 0n) return;
  throw new PeerError(
    `the back-end says that the device state was not processed (CHECK answered ${answer})`,
    {
      details: { answer },
    },
  );
}
