import type { PendingReply } from "../connection/mod.ts";
import { CompatibilityError, ProtocolError, StateError } from "../errors.ts";
import { MAX_MEM_SLOTS, MAX_QUEUE_SIZE, MAX_QUEUES } from "../limits.ts";
import { type Logger, silentLogger } from "../logger.ts";
import { type AddressSpace, DirtyLog, GuestMemory, Iotlb, type RegionLayout } from "../memory/mod.ts";
import { disposeAll, type EventLoop, type Fd, type UnixSocket } from "../sys/mod.ts";
import { InflightRegion } from "../vring/mod.ts";
import {
  dialects,
  type Inflight,
  type Iotlb as IotlbMessage,
  type Log,
  type MessageTable,
  tableFor,
  type VringAddr,
  virtioFeature,
} from "../wire/mod.ts";
import type { Backend, ConfigRange, InflightWithFd, RegionWithFd, StateDirection } from "./backend.ts";
import { checkConfigRange } from "./config-range.ts";
import type { VhostUserDevice } from "./device.ts";
import { type DeviceStateOptions, DeviceStateTransfer } from "./device-state-transfer.ts";
import { FrontendClient } from "./frontend-client.ts";
import { iotlbChange, iotlbMissMessage } from "./iotlb-messages.ts";
import { Postcopy } from "./postcopy.ts";
import { RingSet, type RingSurroundings } from "./ring-set.ts";
import { HANDLER_FEATURES, offeredProtocolFeatures, Session } from "./session.ts";
import { UnsupportedMessages } from "./unsupported-messages.ts";
import type { WorkerRings } from "./worker/worker-rings.ts";

export interface HandlerOptions {
  readonly logger?: Logger | undefined;
  readonly table?: MessageTable | undefined;
  readonly deviceState?: DeviceStateOptions | undefined;
  /** Refuse memory that the peer could still shrink (`--untrusted-peer`). */
  readonly demandSeals?: boolean | undefined;
  readonly drainTimeoutMs?: number | undefined;
  /** How long the rest of a message may take once its first byte is here. */
  readonly messageTimeoutMs?: number | undefined;
  /** Runs the queues of a device that has a `ringProgram`. Stays the caller's. */
  readonly ringWorkers?: WorkerRings | undefined;
  /** Handler features that this back-end shall not offer, e.g. RING_PACKED. */
  readonly withoutFeatures?: bigint | undefined;
}

/**
 * The protocol's rules for one front-end and one device: owner, features, memory, rings, state.
 * The device sees none of the messages; this class sees nothing of what the device does with its chains.
 */
export class DeviceRequestHandler
  extends UnsupportedMessages
  implements Backend, RingSurroundings, Disposable
{
  readonly session: Session;
  readonly memory: GuestMemory;
  readonly table: MessageTable;
  readonly #rings: RingSet;
  readonly #state: DeviceStateTransfer;
  readonly #logger: Logger;
  readonly #postcopy = new Postcopy();
  #iotlb: Iotlb | undefined;
  #owned = false;
  #status = 0;
  frontend: FrontendClient | undefined;
  inflight: InflightRegion | undefined;

  constructor(
    readonly device: VhostUserDevice,
    readonly loop: EventLoop,
    options: HandlerOptions = {},
  ) {
    super();
    this.#logger = options.logger ?? silentLogger;
    this.table = options.table ?? tableFor(dialects.spec);
    const bits = this.table.protocolFeature;
    const features = (device.features | HANDLER_FEATURES) & ~(options.withoutFeatures ?? 0n);
    this.session = new Session(features, offeredProtocolFeatures(device, bits), bits);
    this.memory = new GuestMemory({ demandSeals: options.demandSeals ?? false });
    this.#rings = new RingSet(device, loop, this, this.#logger, options.drainTimeoutMs, options.ringWorkers);
    this.#state = new DeviceStateTransfer(device, loop, this.#logger, options.deviceState);
    if (device.maxQueues < 1 || device.maxQueues > MAX_QUEUES) {
      throw new CompatibilityError(`a device has 1 to ${MAX_QUEUES} queues, not ${device.maxQueues}`);
    }
  }

  // -- Negotiation ------------------------------------------------------------------------------------------------

  setOwner(): void {
    if (this.#owned) throw new StateError("SET_OWNER: this session has an owner already");
    this.#owned = true;
  }

  /** Deprecated in the spec: rings are disabled where they can be enabled again, nothing else is dropped. */
  resetOwner(): void {
    if (this.session.usesProtocolFeatures) this.#rings.setAllEnabled(false);
  }

  getFeatures(): bigint {
    return this.session.offered;
  }

  setFeatures(features: bigint): void {
    // LOG_ALL is switched while rings run; anything else would change what a running ring means.
    const changed = this.session.acked ^ features;
    if (this.#rings.anyStarted && (changed & ~virtioFeature.LOG_ALL) !== 0n) {
      throw new StateError("SET_FEATURES changes features while a ring is started");
    }
    this.#negotiate(() => this.session.ack(features));
    this.#iotlb = this.session.has("ACCESS_PLATFORM") ? (this.#iotlb ?? new Iotlb(this.memory)) : undefined;
    this.#rings.refreshWorkers();
    this.device.ackFeatures(features & ~HANDLER_FEATURES);
  }

  getProtocolFeatures(): bigint {
    return this.session.protocolOffered;
  }

  setProtocolFeatures(features: bigint): void {
    this.#negotiate(() => this.session.ackProtocol(features));
  }

  /** A ring starts disabled exactly when protocol features were negotiated, whichever message says so first. */
  #negotiate(acknowledge: () => void): void {
    const before = this.session.ringsStartEnabled;
    acknowledge();
    const { ringsStartEnabled } = this.session;
    if (ringsStartEnabled !== before && !this.#rings.anyStarted) this.#rings.setAllEnabled(ringsStartEnabled);
  }

  getQueueNum(): number {
    return this.device.maxQueues;
  }

  setStatus(status: number): void {
    this.#status = status;
    if (status === 0) this.resetDevice();
  }

  getStatus(): number {
    return this.#status;
  }

  resetDevice(): void {
    this.#rings.reset();
    this.#rings.setAllEnabled(this.session.ringsStartEnabled);
    this.#state.reset();
    // Its positions are those of rings that no longer exist.
    this.inflight?.[Symbol.dispose]();
    this.inflight = undefined;
    this.frontend?.forgetMappings();
    this.#status = 0;
    this.device.reset();
  }

  // -- Memory -----------------------------------------------------------------------------------------------------

  setMemTable(regions: readonly RegionWithFd[]): readonly RegionLayout[] | undefined {
    this.#requireOwner("SET_MEM_TABLE", regions);
    if (this.#postcopy.isListening && this.#rings.anyStarted) {
      disposeAll(regions.map(({ fd }) => fd));
      // A ring that touches a page before the front-end knows where it is would wait for ever, or see zeros.
      throw new StateError("SET_MEM_TABLE in postcopy while a ring is started");
    }
    const fds = regions.map(({ fd }) => fd);
    this.#rings.whilePaused(() => this.memory.setTable(regions), fds);
    return this.#postcopy.isListening ? this.#postcopy.register(this.memory.regions) : undefined;
  }

  getMaxMemSlots(): number {
    return MAX_MEM_SLOTS;
  }

  addMemReg(region: RegionWithFd): RegionLayout | undefined {
    this.#requireOwner("ADD_MEM_REG", [region]);
    this.memory.addRegion(region.layout, region.fd);
    this.#rings.refreshWorkers();
    if (!this.#postcopy.isListening) return undefined;
    const added = this.memory.regions.filter((r) => r.layout.guestAddress === region.layout.guestAddress);
    return this.#postcopy.register(added)[0];
  }

  remMemReg(layout: RegionLayout): void {
    this.#rings.whilePaused(() => this.memory.removeRegion(layout));
  }

  setLogBase(log: Log, fd: Fd): void {
    const next = DirtyLog.fromFd(fd, log, this.memory.demandSeals);
    const old = this.memory.dirtyLog;
    this.memory.dirtyLog = next;
    this.#rings.refreshWorkers();
    old?.[Symbol.dispose]();
  }

  iotlbMsg(message: IotlbMessage): void {
    const iotlb = this.#iotlb;
    if (iotlb === undefined) throw new StateError("IOTLB_MSG without ACCESS_PLATFORM");
    const change = iotlbChange(message);
    if (change.kind === "invalidate") {
      this.#rings.whilePaused(() => iotlb.invalidate(change.range));
      return;
    }
    iotlb.update(change.entry);
    this.#rings.retry();
  }

  get space(): AddressSpace {
    return this.#iotlb ?? this.memory;
  }

  onMiss(): void {
    const miss = this.#iotlb?.takeMiss();
    if (miss === undefined) return;
    if (this.frontend === undefined)
      throw new StateError("an IOTLB miss, and no back-end channel to ask over");
    this.frontend.iotlbMsg(iotlbMissMessage(miss));
  }

  // -- Rings ------------------------------------------------------------------------------------------------------

  setVringNum(index: number, num: number): void {
    this.#rings.atStopped(index, "SET_VRING_NUM").setNum(num);
  }

  setVringAddr(address: VringAddr): void {
    this.#rings.setAddress(address);
  }

  setVringBase(index: number, base: number): void {
    this.#rings.atStopped(index, "SET_VRING_BASE").base = base;
  }

  getVringBase(index: number): number {
    return this.#stopRing(index, this.session.vringBaseSkipsDrain);
  }

  getVringBaseSkipDrain(index: number): number {
    return this.#stopRing(index, true);
  }

  /** Without a buffer there is nothing that what is in flight could be left to. */
  #stopRing(index: number, skipDrain: boolean): number {
    return this.#rings.stop(index, skipDrain && this.inflight !== undefined);
  }

  setVringKick(index: number, fd: Fd | undefined): void {
    this.#requireOwner("SET_VRING_KICK", fd === undefined ? [] : [{ fd }]);
    this.#rings.setKick(index, fd);
  }

  setVringCall(index: number, fd: Fd | undefined): void {
    this.#rings.setCall(index, fd);
  }

  setVringErr(index: number, fd: Fd | undefined): void {
    this.#rings.setErr(index, fd);
  }

  setVringEnable(index: number, enabled: boolean): void {
    this.#rings.setEnabled(index, enabled);
  }

  vringKick(index: number): void {
    this.#rings.kick(index);
  }

  getInflightFd(request: Inflight): InflightWithFd {
    const { numQueues, queueSize } = request;
    if (numQueues < 1 || numQueues > this.device.maxQueues || queueSize < 1 || queueSize > MAX_QUEUE_SIZE) {
      throw new ProtocolError(`asks for ${numQueues} queues of ${queueSize} entries`, "GET_INFLIGHT_FD");
    }
    const packed = this.session.has("RING_PACKED");
    const { fd, sizeBytes, mmapOffset } = InflightRegion.create({ numQueues, queueSize, packed });
    return { layout: { sizeBytes, mmapOffset, numQueues, queueSize }, fd };
  }

  setInflightFd({ layout, fd }: InflightWithFd): void {
    if (this.#rings.anyStarted) {
      fd[Symbol.dispose]();
      throw new StateError("SET_INFLIGHT_FD while a ring is started");
    }
    const description = { ...layout, packed: this.session.has("RING_PACKED") };
    const next = InflightRegion.open(fd, description, this.memory.demandSeals);
    this.inflight?.[Symbol.dispose]();
    this.inflight = next;
  }

  /** Stops the device's work on all rings until `resumeAll`; the front-end's requests are still answered. */
  pauseAll(): void {
    this.#rings.pauseAll();
  }

  resumeAll(): void {
    this.#rings.resumeAll();
  }

  beforeStart(): void {
    this.#state.checkStart(this.session.acked);
  }

  onWake(): void {
    this.frontend?.wake();
  }

  onSuspend(): void {
    this.frontend?.suspend();
    this.device.enterSuspendedState?.();
  }

  // -- Device -----------------------------------------------------------------------------------------------------

  getConfig({ offset, sizeBytes }: ConfigRange): Uint8Array {
    const config = this.device.readConfig();
    checkConfigRange("GET_CONFIG", offset, sizeBytes, config.length);
    return config.subarray(offset, offset + sizeBytes);
  }

  setConfig(offset: number, bytes: Uint8Array, _migration: boolean): void {
    checkConfigRange("SET_CONFIG", offset, bytes.length, this.device.readConfig().length);
    if (this.device.writeConfig === undefined)
      throw new CompatibilityError("this device's config space is read-only");
    this.device.writeConfig(offset, bytes);
  }

  setBackendReqFd(socket: UnixSocket): void {
    const next = FrontendClient.over(socket, this.loop, this.session, this.table, this.#logger);
    this.frontend?.[Symbol.dispose]();
    this.frontend = next;
    if (this.#rings.anyStarted) this.frontend.wake();
    this.device.setBackendRequestConnection?.(this.frontend);
  }

  setDeviceStateFd(direction: StateDirection, phase: number, fd: Fd): Fd | undefined {
    this.#requireOwner("SET_DEVICE_STATE_FD", [{ fd }]);
    if (this.#rings.anyStarted) {
      fd[Symbol.dispose]();
      throw new StateError("SET_DEVICE_STATE_FD while a ring is started; GET_VRING_BASE stops it");
    }
    return this.#state.begin(direction, phase, fd, this.session.acked);
  }

  checkDeviceState(): bigint | PendingReply {
    return this.#state.check(this.session.offered);
  }

  getShmemConfig(): ReadonlyMap<number, number> {
    return new Map(this.device.sharedMemoryRegions?.().map(({ id, sizeBytes }) => [id, sizeBytes]));
  }

  getSharedObject(uuid: Uint8Array): Fd {
    const fd = this.device.sharedObject?.(uuid);
    if (fd === undefined) throw new CompatibilityError("this device exports no shared object with this UUID");
    return fd;
  }

  netSetMtu(mtu: number): void {
    if (this.device.setMtu === undefined) throw new CompatibilityError("this device has no MTU");
    this.device.setMtu(mtu);
  }

  sendRarp(mac: Uint8Array): void {
    if (this.device.sendRarp === undefined)
      throw new CompatibilityError("this device announces no MAC address");
    this.device.sendRarp(mac);
  }

  // -- Postcopy ---------------------------------------------------------------------------------------------------

  postcopyAdvise(): Fd {
    return this.#postcopy.advise();
  }

  postcopyListen(): void {
    this.#postcopy.listen();
  }

  postcopyEnd(): void {
    this.#postcopy.end();
  }

  /** The front-end is gone: rings stop, everything it gave is closed, the device waits for the next one. */
  [Symbol.dispose](): void {
    const wasRunning = this.#rings.anyStarted;
    this.#state[Symbol.dispose]();
    this.#rings[Symbol.dispose]();
    this.device.setBackendRequestConnection?.(undefined);
    this.frontend?.[Symbol.dispose]();
    this.#postcopy[Symbol.dispose]();
    this.#rings.afterWork(() => {
      if (wasRunning) this.device.enterSuspendedState?.();
      this.inflight?.[Symbol.dispose]();
      this.memory.dirtyLog?.[Symbol.dispose]();
      this.memory[Symbol.dispose]();
    });
  }

  #requireOwner(request: string, items: readonly { readonly fd: Fd }[]): void {
    if (this.#owned) return;
    for (const { fd } of items) fd[Symbol.dispose]();
    throw new StateError(`${request} before SET_OWNER`);
  }
}
