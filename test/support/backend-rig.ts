import {
  BackendSession,
  type DeviceRequestHandler,
  type HandlerOptions,
  type SessionEnd,
  type VhostUserDevice,
} from "../../src/backend/mod.ts";
import { Connection, type Frame, RequestChannel } from "../../src/connection/mod.ts";
import { PeerError } from "../../src/errors.ts";
import { BackendClient, type SharedRegion } from "../../src/frontend/mod.ts";
import { GuestMemory, type RegionLayout } from "../../src/memory/mod.ts";
import {
  createEventFd,
  createMemfd,
  disposeAll,
  drainEvent,
  EventLoop,
  type Fd,
  signalEvent,
  UnixSocket,
} from "../../src/sys/mod.ts";
import {
  createDriverRing,
  type DriverRing,
  type DriverRingState,
  INITIAL_PACKED_BASE,
  type RingLayout,
} from "../../src/vring/mod.ts";
import {
  dialects,
  headerFlag,
  type MessageTable,
  type ProtocolFeature,
  tableFor,
  virtioFeature,
} from "../../src/wire/mod.ts";
import { recordingLogger } from "./recording-logger.ts";
import { TestDevice } from "./test-device.ts";

export const REGION_BYTES = 1 << 20;
export const USER_BASE = 0x7f00_0000_0000;
const RING_BYTES = 0x4000;
const BUFFERS = 0x80000;
const BUFFER_BYTES = 256;
export const RING_SIZE = 16;

export interface RigOptions<D = TestDevice> extends HandlerOptions {
  /** Default: a TestDevice of 4 queues. */
  readonly device?: D;
}

/** A back-end session and a front-end that says exactly what a test tells it to, in one thread and on one loop. */
export class BackendRig<D extends VhostUserDevice = TestDevice> implements Disposable {
  readonly loop = new EventLoop();
  readonly device: D;
  readonly session: BackendSession;
  readonly channel: RequestChannel;
  readonly client: BackendClient;
  readonly table: MessageTable;
  readonly log = recordingLogger();
  /** The driver's own view of the memory. */
  readonly memory = new GuestMemory();
  readonly regions: SharedRegion[] = [];
  readonly owned = new DisposableStack();
  end: SessionEnd | undefined;

  constructor(options: RigOptions<D> = {}) {
    this.device = options.device ?? (new TestDevice(4, 0xffn) as VhostUserDevice as D);
    this.table = options.table ?? tableFor(dialects.spec);
    const [ours, theirs] = UnixSocket.pair();
    const handlerOptions = { logger: this.log, ...options, table: this.table };
    this.session = new BackendSession(
      theirs,
      this.device,
      this.loop,
      (end) => (this.end = end),
      handlerOptions,
    );
    this.channel = new RequestChannel(new Connection(ours), {
      whileWaiting: () => void this.loop.runOnce(0),
      requestTimeoutMs: 2_000,
    });
    this.client = new BackendClient(this.channel, this.table);
  }

  get handler(): DeviceRequestHandler {
    return this.session.handler;
  }

  /** SET_OWNER, protocol features and features. */
  negotiate(protocol: readonly ProtocolFeature[] = ["REPLY_ACK", "CONFIG", "MQ"], features = 0n): this {
    this.client.setOwner();
    this.client.getFeatures();
    const mask = protocol.reduce((sum, name) => sum | this.table.protocolFeature[name]!, 0n);
    this.client.setProtocolFeatures(mask);
    this.client.setFeatures(virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1 | features);
    return this;
  }

  /** A region of memory for the driver, shared with nobody yet. */
  region(guestAddress = 0, sizeBytes = REGION_BYTES, userAddress = USER_BASE + guestAddress): SharedRegion {
    const layout: RegionLayout = { guestAddress, sizeBytes, userAddress, mmapOffset: 0 };
    const region = { layout, fd: this.owned.use(createMemfd("rig", sizeBytes)) };
    this.memory.addRegion(layout, region.fd.duplicate());
    this.regions.push(region);
    return region;
  }

  /** One region of 1 MiB, in the back-end's table. */
  shareMemory(): this {
    if (this.regions.length === 0) this.region();
    this.client.setMemTable(this.regions);
    return this;
  }

  ring(index = 0, options: Partial<RingLayout> = {}): RigRing {
    return this.owned.use(new RigRing(this, index, options));
  }

  /** A socket pair: a connection for the test, and the socket to give away. */
  pair(): [Connection, UnixSocket] {
    const [ours, theirs] = UnixSocket.pair();
    return [this.owned.use(new Connection(ours)), theirs];
  }

  /** An eventfd that lives as long as the rig. */
  event(label = "rig event"): Fd {
    return this.owned.use(createEventFd(label));
  }

  /** Lets everything happen that is ready. */
  settle(turns = 32): void {
    for (let i = 0; i < turns; i++) this.loop.runOnce(0);
  }

  /** Sends anything, and gives what comes back: a frame (its fds are closed), "nothing", or "closed". */
  raw(
    request: number,
    payload: Uint8Array = new Uint8Array(0),
    options: { flags?: number; fds?: readonly Fd[] } = {},
  ): Frame | "nothing" | "closed" {
    const { flags = headerFlag.VERSION, fds = [] } = options;
    this.channel.connection.send(request, flags, payload, fds);
    this.settle();
    const received = this.channel.connection.receive(0);
    if (typeof received !== "string") received.fds[Symbol.dispose]();
    return received;
  }

  /** The code of the error that a request is refused with when it asks for an acknowledgement; the session stays. */
  refusal(request: () => void): string {
    const before = this.log.lines.length;
    try {
      request();
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      const line = this.log.lines.slice(before).find(({ message }) => message.startsWith("refused"));
      return line?.message ?? `no line about it: ${error.message}`;
    }
    return "not refused";
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
    this.settle(4);
    this.session[Symbol.dispose]();
    this.owned[Symbol.dispose]();
    this.memory[Symbol.dispose]();
    this.loop[Symbol.dispose]();
  }
}

interface Token {
  readonly sequence: number;
  readonly slot: number;
}

/** A ring with its driver's side: echoes go round. */
export class RigRing implements Disposable {
  readonly layout: RingLayout;
  driver: DriverRing<Token>;
  readonly kick = createEventFd("rig kick");
  readonly call = createEventFd("rig call");
  #sequence = 0;

  constructor(
    readonly rig: BackendRig<VhostUserDevice>,
    readonly index: number,
    options: Partial<RingLayout>,
  ) {
    const start = index * RING_BYTES;
    const packed = options.packed ?? false;
    this.layout = {
      size: RING_SIZE,
      descriptor: start,
      available: start + 0x1000,
      used: start + 0x2000,
      packed,
      eventIdx: false,
      indirect: false,
      base: packed ? INITIAL_PACKED_BASE : 0,
      ...options,
    };
    this.driver = createDriverRing(rig.memory, this.layout);
  }

  /** SET_VRING_ADDR as the driver's layout says, in user addresses. */
  setAddress(flags = 0, log = this.layout.used): this {
    const { descriptor, available, used } = this.layout;
    this.rig.client.setVringAddr({
      index: this.index,
      flags,
      descriptor: USER_BASE + descriptor,
      available: USER_BASE + available,
      used: USER_BASE + used,
      log,
    });
    return this;
  }

  configure(base = this.layout.base): this {
    const { client } = this.rig;
    client.setVringNum(this.index, this.layout.size);
    this.setAddress();
    client.setVringBase(this.index, base);
    client.setVringCall(this.index, this.call);
    return this;
  }

  start(base = this.layout.base, enable = true): this {
    this.configure(base).rig.client.setVringKick(this.index, this.kick);
    if (enable) this.rig.client.setVringEnable(this.index, true);
    this.rig.settle();
    return this;
  }

  stop(): number {
    return this.rig.client.getVringBase(this.index);
  }

  /** Offers a request of `bytes` and as much room for the echo, without a kick. */
  add(bytes: Uint8Array): boolean {
    const sequence = this.#sequence++;
    const slot = sequence % 32;
    const out = BUFFERS + this.index * 0x8000 + slot * 2 * BUFFER_BYTES;
    this.rig.memory.write(out, bytes);
    const pieces = [
      { guestAddress: out, sizeBytes: bytes.length, writable: false },
      { guestAddress: out + BUFFER_BYTES, sizeBytes: bytes.length, writable: true },
    ];
    return this.driver.add(pieces, { sequence, slot });
  }

  /** Where the echo of request `sequence` goes. */
  roomOf(sequence: number): number {
    return BUFFERS + this.index * 0x8000 + (sequence % 32) * 2 * BUFFER_BYTES + BUFFER_BYTES;
  }

  notify(): void {
    signalEvent(this.kick);
    this.rig.settle(4);
  }

  /** Echoes that came back. */
  take(): Uint8Array[] {
    const echoes: Uint8Array[] = [];
    for (let used = this.driver.popUsed(); used !== undefined; used = this.driver.popUsed()) {
      const bytes = new Uint8Array(used.writtenBytes);
      this.rig.memory.read(this.roomOf(used.token.sequence), bytes);
      echoes.push(bytes);
    }
    return echoes;
  }

  /** One request, there and back. */
  echo(text: string): string {
    this.add(new TextEncoder().encode(text));
    this.notify();
    return this.take()
      .map((bytes) => new TextDecoder().decode(bytes))
      .join("|");
  }

  get called(): boolean {
    return drainEvent(this.call);
  }

  exportState(): DriverRingState<Token> {
    return this.driver.exportState();
  }

  [Symbol.dispose](): void {
    this.driver[Symbol.dispose]();
    disposeAll([this.kick, this.call]);
  }
}
