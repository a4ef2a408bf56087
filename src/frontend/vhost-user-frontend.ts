import { Connection, RequestChannel, type RequestChannelOptions } from "../connection/mod.ts";
import { CompatibilityError, NegotiationError, StateError } from "../errors.ts";
import { MAX_QUEUE_SIZE } from "../limits.ts";
import { type Logger, silentLogger } from "../logger.ts";
import type { DirtyBitmap } from "../memory/mod.ts";
import { type EventLoop, POLL, signalEvent, type UnixSocket } from "../sys/mod.ts";
import {
  describeFeatures,
  dialects,
  type MessageTable,
  type ProtocolFeature,
  tableFor,
  virtioFeature,
} from "../wire/mod.ts";
import { BackendClient, type InflightBuffer, type SharedRegion } from "./backend-client.ts";
import { DEVICE_TYPE_FEATURES, type DeviceType } from "./device-types.ts";
import { type BackendRequestHandler, FrontendServer } from "./frontend-server.ts";
import type { Interrupt } from "./interrupt.ts";
import { RunningQueues } from "./running-queues.ts";
import { SharedMemory } from "./shared-memory.ts";
import { loadDeviceState, saveDeviceState, type TransferOptions } from "./state-transfer.ts";
import type { QueueSetup, SharedMemoryRegionInfo, VirtioDevice } from "./virtio-device.ts";

/** Protocol features that the front-end makes use of. */
export const FRONTEND_PROTOCOL_FEATURES: readonly ProtocolFeature[] = [
  "MQ",
  "LOG_SHMFD",
  "REPLY_ACK",
  "BACKEND_REQ",
  "CONFIG",
  "BACKEND_SEND_FD",
  "INFLIGHT_SHMFD",
  "RESET_DEVICE",
  "CONFIGURE_MEM_SLOTS",
  "STATUS",
  "SHMEM",
  "DEVICE_STATE",
];

export interface FrontendOptions {
  readonly type: DeviceType;
  /** Feature bits besides the device type's own that may be used, e.g. VERSION_1, EVENT_IDX. */
  readonly baseFeatures: bigint;
  /** Protocol features that may be negotiated. Default: all that this front-end uses. */
  readonly allowedProtocolFeatures?: readonly ProtocolFeature[] | undefined;
  /** Queues to use. Default: all that the back-end has, or the type's least number where it cannot say. */
  readonly queueCount?: number | undefined;
  /** Largest queue size; rounded down to a power of two. Default 32768. */
  readonly maxQueueSize?: number | undefined;
  /** The config space where the back-end has none (virtiofsd): the VMM's own. */
  readonly localConfig?: Uint8Array | undefined;
  /** What to do with the back-end's requests. Config changes also signal the interrupt. */
  readonly requests?: Partial<BackendRequestHandler> | undefined;
  /** The back-end died or hung up while nobody waited for an answer of it. */
  readonly onDisconnect?: (() => void) | undefined;
  readonly table?: MessageTable | undefined;
  readonly logger?: Logger | undefined;
  readonly channel?: RequestChannelOptions | undefined;
}

const DEFAULT_BASE_FEATURES =
  virtioFeature.VERSION_1 | virtioFeature.RING_INDIRECT_DESC | virtioFeature.RING_EVENT_IDX;

/** Base features for a machine of ours: modern, indirect descriptors, EVENT_IDX. */
export const baseFeatures = DEFAULT_BASE_FEATURES;

/**
 * A vhost-user back-end as a virtio device: negotiates, starts and stops queues, moves state.
 *
 * The channel for the back-end's requests lives as long as this object: through reset, sleep and wake. Its requests are
 * served whenever a reply is awaited, and by whoever runs `loop`.
 */
export class VhostUserFrontend implements VirtioDevice, Disposable {
  readonly client: BackendClient;
  /** What the back-end offered and what is used of it. */
  readonly offeredFeatures: bigint;
  readonly offeredProtocolFeatures: bigint;
  readonly protocolFeatures: bigint;
  readonly features: bigint;
  readonly queueMaxSizes: readonly number[];
  readonly sharedMemoryRegions: readonly SharedMemoryRegionInfo[];
  readonly #queues: RunningQueues;
  readonly #memory: SharedMemory;
  readonly #server: FrontendServer | undefined;
  readonly #table: MessageTable;
  readonly #channel: RequestChannel;
  #ackedFeatures: bigint;
  #isLogging = false;
  #interrupt: Interrupt | undefined;

  /** Takes the socket, and negotiates. @throws NegotiationError, PeerError */
  constructor(
    socket: UnixSocket,
    readonly loop: EventLoop,
    readonly options: FrontendOptions,
  ) {
    this.#table = options.table ?? tableFor(dialects.spec);
    using stack = new DisposableStack();
    this.#channel = stack.use(new RequestChannel(new Connection(socket), options.channel));
    this.client = new BackendClient(this.#channel, this.#table);
    this.client.setOwner();
    this.offeredFeatures = this.client.getFeatures();
    this.features = this.offeredFeatures & (DEVICE_TYPE_FEATURES | options.baseFeatures);
    // Bit 30 so far: the driver acknowledges the rest later, but messages need protocol features before that. VERSION_1 is
    // what every driver here uses, and libvhost-user hangs up at a SET_FEATURES without it (tried: qemu-storage-daemon).
    const early = virtioFeature.PROTOCOL_FEATURES | (options.baseFeatures & virtioFeature.VERSION_1);
    this.#ackedFeatures = this.offeredFeatures & early;
    this.client.setFeatures(this.#ackedFeatures);
    const hasProtocolFeatures = (this.offeredFeatures & virtioFeature.PROTOCOL_FEATURES) !== 0n;
    this.offeredProtocolFeatures = hasProtocolFeatures ? this.client.getProtocolFeatures() : 0n;
    this.protocolFeatures = this.offeredProtocolFeatures & this.#allowedProtocolFeatures();
    if (hasProtocolFeatures) this.client.setProtocolFeatures(this.protocolFeatures);
    this.#server = this.#openRequestChannel(stack);
    this.queueMaxSizes = new Array(this.#queueCount()).fill(
      clampQueueSize(options.maxQueueSize ?? MAX_QUEUE_SIZE),
    );
    this.sharedMemoryRegions = this.#readSharedMemoryRegions();
    this.#memory = new SharedMemory(this.client, this.has("CONFIGURE_MEM_SLOTS"));
    this.#queues = new RunningQueues(this.client, hasProtocolFeatures, this.has("INFLIGHT_SHMFD"));
    this.#watchForHangUp();
    stack.move();
  }

  get deviceType(): number {
    return this.options.type.id;
  }

  /** The features that were acknowledged, bit 30 included. */
  get ackedFeatures(): bigint {
    return this.#ackedFeatures;
  }

  get isActive(): boolean {
    return this.#queues.isRunning;
  }

  has(feature: ProtocolFeature): boolean {
    const bit = this.#table.protocolFeature[feature];
    return bit !== undefined && (this.protocolFeatures & bit) !== 0n;
  }

  /** Tells the back-end what the driver chose. @throws NegotiationError when the driver chose what was not offered */
  ackFeatures(features: bigint): void {
    const extra = features & ~this.features;
    if (extra !== 0n) {
      const names = describeFeatures(extra, virtioFeature).join(", ");
      throw new NegotiationError(`the driver chose features that the device does not have: ${names}`);
    }
    this.#ackedFeatures = features | (this.offeredFeatures & virtioFeature.PROTOCOL_FEATURES);
    this.#sendFeatures();
  }

  /** Whether the back-end can say what it writes to guest memory. */
  get canLog(): boolean {
    return this.has("LOG_SHMFD") && (this.offeredFeatures & virtioFeature.LOG_ALL) !== 0n;
  }

  /**
   * From now on the back-end marks the pages that it writes to, through sleep and wake, too. In the order of QEMU's, which
   * every back-end knows; queues may run. @throws CompatibilityError for a back-end that cannot
   */
  startLog({ fd, sizeBytes }: Pick<DirtyBitmap, "fd" | "sizeBytes">): void {
    if (!this.canLog) throw new CompatibilityError("the back-end has no dirty log (LOG_SHMFD, F_LOG_ALL)");
    this.client.setLogBase({ sizeBytes, offset: 0 }, fd);
    this.#isLogging = true;
    this.#sendFeatures();
    this.#queues.setLogging(true);
  }

  stopLog(): void {
    if (!this.#isLogging) return;
    this.#isLogging = false;
    this.#queues.setLogging(false);
    this.#sendFeatures();
  }

  readConfig(offset: number, sizeBytes: number): Uint8Array {
    const { localConfig } = this.options;
    if (this.has("CONFIG")) return this.client.getConfig(offset, sizeBytes);
    if (localConfig !== undefined && offset + sizeBytes <= localConfig.length) {
      return localConfig.slice(offset, offset + sizeBytes);
    }
    throw new CompatibilityError("the back-end has no CONFIG, and no local config space covers these bytes", {
      details: { offset, sizeBytes },
    });
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    const { localConfig } = this.options;
    if (this.has("CONFIG")) this.client.setConfig(offset, bytes);
    else if (localConfig !== undefined && offset + bytes.length <= localConfig.length)
      localConfig.set(bytes, offset);
    else
      throw new CompatibilityError(
        "the back-end has no CONFIG, and no local config space covers these bytes",
      );
  }

  /** Starts the queues that the driver has set up. */
  activate(memory: readonly SharedRegion[], interrupt: Interrupt, queues: readonly QueueSetup[]): void {
    if (this.#queues.isRunning) throw new StateError("the device is active already");
    if (queues.some(({ index }) => index >= this.queueMaxSizes.length)) {
      throw new StateError(`the device has ${this.queueMaxSizes.length} queues`);
    }
    this.#interrupt = interrupt;
    this.#memory.share(memory);
    this.#queues.start(memory, interrupt, queues);
  }

  reset(): void {
    this.#queues.stop();
    this.#queues.forgetInflight();
    if (this.has("RESET_DEVICE")) this.client.resetDevice();
  }

  sleep(): ReadonlyMap<number, number> {
    return this.#queues.stop();
  }

  wake(memory: readonly SharedRegion[], interrupt: Interrupt, queues: readonly QueueSetup[]): void {
    this.activate(memory, interrupt, queues);
  }

  /** The device's state, in pieces, while it is suspended. Returns its size. */
  async saveState(onBytes: (bytes: Uint8Array) => void, options?: TransferOptions): Promise<number> {
    this.#requireState();
    return await saveDeviceState(this.client, onBytes, options);
  }

  /** Gives the device a state; it must be suspended. */
  async loadState(
    chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    options?: TransferOptions,
  ): Promise<number> {
    this.#requireState();
    return await loadDeviceState(this.client, chunks, options);
  }

  /** The inflight buffer, which outlives the back-end's process: what a reconnect needs. Stays this object's. */
  get inflight(): InflightBuffer | undefined {
    return this.#queues.inflight;
  }

  /** Takes up the inflight buffer of a back-end that died, for the next activation; its fd becomes this object's. */
  adoptInflight(inflight: InflightBuffer): void {
    this.#queues.adoptInflight(inflight);
  }

  /** The protocol features under the bits that they have in the dialect that is spoken. */
  get protocolFeatureBits(): Readonly<Partial<Record<ProtocolFeature, bigint>>> {
    return this.#table.protocolFeature;
  }

  [Symbol.dispose](): void {
    this.#endWatch();
    this.#server?.[Symbol.dispose]();
    this.#queues[Symbol.dispose]();
    this.client[Symbol.dispose]();
  }

  /**
   * Nothing arrives on the main socket but answers that are awaited: outside of a wait, input means that the back-end
   * hung up. While an answer is awaited, the loop serves the back-end's own requests: it may need their answer first.
   */
  #watchForHangUp(): void {
    const channel = this.#channel;
    this.loop.watch(channel.connection.socket.fd, POLL.IN, () => {
      if (channel.isWaiting || channel.takeLateAnswer()) return;
      this.#endWatch();
      this.options.onDisconnect?.();
    });
    if (this.#server !== undefined)
      channel.whileWaiting ??= (remainingMs) => void this.loop.runOnce(remainingMs);
  }

  #endWatch(): void {
    this.loop.unwatch(this.#channel.connection.socket.fd);
  }

  /** F_LOG_ALL is no choice of the driver's. */
  #sendFeatures(): void {
    this.client.setFeatures(this.#ackedFeatures | (this.#isLogging ? virtioFeature.LOG_ALL : 0n));
  }

  #requireState(): void {
    if (!this.has("DEVICE_STATE")) {
      throw new CompatibilityError(
        "the back-end has no DEVICE_STATE: its state can be neither saved nor loaded",
      );
    }
    if (this.#queues.isRunning)
      throw new StateError("the device is active; sleep() must come before its state is moved");
  }

  #allowedProtocolFeatures(): bigint {
    const names = this.options.allowedProtocolFeatures ?? FRONTEND_PROTOCOL_FEATURES;
    return names.reduce((mask, name) => mask | (this.#table.protocolFeature[name] ?? 0n), 0n);
  }

  #openRequestChannel(stack: DisposableStack): FrontendServer | undefined {
    if (!this.has("BACKEND_REQ")) return undefined;
    const { requests, logger = silentLogger } = this.options;
    const handler: BackendRequestHandler = {
      ...requests,
      configChange: () => {
        if (this.#interrupt !== undefined) signalEvent(this.#interrupt.configChange);
        requests?.configChange?.();
      },
    };
    const { server, backendEnd } = FrontendServer.create(
      this.loop,
      this.#table,
      handler,
      this.protocolFeatures,
      logger,
    );
    stack.use(server);
    using _theirs = backendEnd;
    this.client.setBackendReqFd(backendEnd.fd);
    return server;
  }

  #queueCount(): number {
    const { queueCount, type } = this.options;
    if (!this.has("MQ")) return queueCount ?? type.minQueues;
    const most = this.client.getQueueNum();
    if (queueCount !== undefined && queueCount > most) {
      throw new NegotiationError(`${queueCount} queues are asked for, the back-end has ${most}`);
    }
    return queueCount ?? most;
  }

  #readSharedMemoryRegions(): readonly SharedMemoryRegionInfo[] {
    if (!this.has("SHMEM")) return [];
    return [...this.client.getShmemConfig()].map(([id, sizeBytes]) => ({ id, sizeBytes }));
  }
}

function clampQueueSize(size: number): number {
  return 2 ** Math.floor(Math.log2(Math.min(Math.max(size, 1), MAX_QUEUE_SIZE)));
}
