import assert from "node:assert/strict";
import type {
  DeviceQueue,
  DeviceRestore,
  FrontendClient,
  QueueRunner,
  VhostUserDevice,
} from "../../src/backend/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { MAX_QUEUES } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import type { EventLoop } from "../../src/sys/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";
import { ByteQuota, type RateLimit } from "../rate-limit/mod.ts";
import { ObjectState } from "../state/mod.ts";
import {
  DEFAULT_MTU,
  encodeNetConfig,
  MAC_BYTES,
  MIN_MTU,
  netFeature,
  netStatus,
  OFFLOAD_FEATURES,
} from "./config.ts";
import { type ControlTarget, serveControl } from "./control-queue.ts";
import { LimitedLog } from "./limited-log.ts";
import { randomMac } from "./mac-address.ts";
import type { NetEnd } from "./net-end.ts";
import { QueuePair } from "./queue-pair.ts";
import { rarpFrame } from "./rarp.ts";
import { RxFilter } from "./rx-filter.ts";
import { checkNetState, flattenNetState, NET_STATE_VERSION, type NetState, netUpgrades } from "./state.ts";

export interface NetOptions {
  /** 6 bytes. Default: a random one, or what a restored state says. */
  readonly mac?: Uint8Array | undefined;
  /** Default 1500, or what a restored state or NET_SET_MTU says. */
  readonly mtu?: number | undefined;
  /** For each direction by itself; what the frames have with their virtio headers counts. Default: none. */
  readonly rateLimit?: RateLimit | undefined;
  readonly logger?: Logger | undefined;
}

const { MAC, MTU, STATUS, MRG_RXBUF, CTRL_VQ, CTRL_RX, CTRL_RX_EXTRA, CTRL_MAC_ADDR, GUEST_ANNOUNCE, MQ } =
  netFeature;

/** Without a control queue of ours the front-end has one, and does what it says itself. */
const OWN_FEATURES =
  MAC | MTU | STATUS | MRG_RXBUF | CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC_ADDR | GUEST_ANNOUNCE;

/**
 * A virtio network device (virtio 1.3, 5.1) between a guest and one end: a tap, a stream socket, or a loopback. Queues: receive
 * 2i and transmit 2i+1 of pair i, then the control queue. Frames have the 12-byte header that VERSION_1 has.
 *
 * @example
 * const device = new NetDevice(new TapEnd(Tap.open("tap0"), loop, logger), loop, { mac: parseMac("52:54:00:12:34:56") });
 */
export class NetDevice implements VhostUserDevice, Disposable {
  readonly deviceType = "net";
  readonly maxQueues: number;
  readonly features: bigint;
  readonly protocolFeatures =
    protocolFeature.CONFIG | protocolFeature.MTU | protocolFeature.RARP | protocolFeature.BACKEND_REQ;
  readonly stateVersion = NET_STATE_VERSION;
  readonly oldestCompatibleStateVersion = 1;
  readonly #pairs: readonly QueuePair[];
  readonly #receiveQuota: ByteQuota;
  readonly #transmitQuota: ByteQuota;
  readonly #filter = new RxFilter();
  readonly #state: ObjectState<object>;
  readonly #configured: { mac: Uint8Array; readonly mtu: number };
  #mac: Uint8Array;
  #mtu: number;
  #acked = 0n;
  #activePairs = 1;
  #announces = false;
  #restored = false;
  #running = false;
  #frontend: FrontendClient | undefined;

  /** Takes the end. @throws UsageError */
  constructor(
    readonly end: NetEnd,
    readonly loop: EventLoop,
    options: NetOptions = {},
  ) {
    const { mac, mtu = DEFAULT_MTU, rateLimit, logger = silentLogger } = options;
    const queuePairs = end.ports.length;
    this.maxQueues = 2 * queuePairs + 1;
    if (queuePairs < 1 || this.maxQueues > MAX_QUEUES) {
      throw new UsageError(
        `a network device has 1 to ${(MAX_QUEUES - 1) >> 1} queue pairs, not ${queuePairs}`,
      );
    }
    if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > 0xffff) {
      throw new UsageError(`an MTU is ${MIN_MTU} to 65535 bytes, not ${mtu}`);
    }
    assert(mac === undefined || mac.length === MAC_BYTES, "a MAC address has 6 bytes");
    this.features = OWN_FEATURES | (end.features & OFFLOAD_FEATURES) | (queuePairs > 1 ? MQ : 0n);
    this.#configured = { mac: mac ?? randomMac(), mtu };
    this.#mac = this.#configured.mac;
    this.#mtu = mtu;
    this.#receiveQuota = new ByteQuota(loop, rateLimit, () => this.#eachPair((pair) => pair.wakeReceive()));
    this.#transmitQuota = new ByteQuota(loop, rateLimit, () => this.#eachPair((pair) => pair.wakeTransmit()));
    this.#pairs = this.#makePairs(logger);
    // What is captured is the flat form of what is checked.
    this.#state = new ObjectState<object>({
      deviceType: this.deviceType,
      version: NET_STATE_VERSION,
      capture: () => this.#capture(),
      check: (fields) => checkNetState(fields, { mac, queuePairs }),
      apply: (state) => this.#apply(state as NetState),
      upgrades: netUpgrades(),
    });
    end.open({
      onInput: (pair) => this.#pairs[pair]!.onInput(),
      onOutput: (pair) => this.#pairs[pair]!.onOutput(),
      onLink: () => this.#frontend?.configChange(),
    });
  }

  ackFeatures(features: bigint): void {
    this.#acked = features;
  }

  readConfig(): Uint8Array {
    const link = this.end.linkUp ? netStatus.LINK_UP : 0;
    return encodeNetConfig({
      mac: this.#mac,
      status: link | (this.#announces ? netStatus.ANNOUNCE : 0),
      queuePairs: this.#pairs.length,
      mtu: this.#mtu,
    });
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    this.#wake();
    if (queue.index === this.#controlIndex) {
      const target = this.#controlTarget();
      return { onKick: () => queue.serve((chain) => serveControl(chain, target)) };
    }
    const pair = this.#pairs[queue.index >> 1];
    if (pair === undefined) return { onKick: () => {} };
    return (queue.index & 1) === 0 ? pair.startReceive(queue) : pair.startTransmit(queue);
  }

  stopQueue(index: number): void {
    if (index === this.#controlIndex) return;
    const pair = this.#pairs[index >> 1];
    if ((index & 1) === 0) pair?.stopReceive();
    else pair?.stopTransmit();
  }

  reset(): void {
    this.#acked = 0n;
    this.#mac = this.#configured.mac;
    this.#mtu = this.#configured.mtu;
    this.#activePairs = 1;
    this.#announces = this.#restored = false;
    this.#filter.reset();
    this.#eachPair((pair) => pair.reset());
  }

  enterSuspendedState(): void {
    this.#running = false;
    this.end.suspend();
    this.#receiveQuota.cancel();
    this.#transmitQuota.cancel();
    this.#eachPair((pair) => pair.suspend());
  }

  snapshot(): Iterable<StateSection> {
    return this.#state.snapshot();
  }

  beginRestore(header: StateHeader): DeviceRestore {
    return this.#state.beginRestore(header);
  }

  setBackendRequestConnection(client: FrontendClient | undefined): void {
    this.#frontend = client;
  }

  setMtu(mtu: number): void {
    if (mtu === this.#mtu) return;
    this.#mtu = mtu;
    this.#frontend?.configChange();
  }

  /** A suspended device keeps it until it runs. */
  sendRarp(mac: Uint8Array): void {
    this.#pairs[0]!.announce(rarpFrame(mac));
  }

  [Symbol.dispose](): void {
    this.enterSuspendedState();
    this.end[Symbol.dispose]();
  }

  /** The last one that the driver sees; without MQ it sees one pair (virtio 1.3, 5.1.2). */
  get #controlIndex(): number {
    if (!this.#ownsControl) return -1;
    return (this.#acked & MQ) === 0n ? 2 : 2 * this.#pairs.length;
  }

  /** QEMU keeps the control queue itself and does not acknowledge CTRL_VQ; others leave it to the back-end. */
  get #ownsControl(): boolean {
    return (this.#acked & CTRL_VQ) !== 0n;
  }

  get #filters(): boolean {
    return this.#ownsControl && (this.#acked & CTRL_RX) !== 0n;
  }

  #makePairs(logger: Logger): QueuePair[] {
    const device = this;
    const around = {
      drops: new LimitedLog(logger),
      get mergesBuffers() {
        return (device.#acked & MRG_RXBUF) !== 0n;
      },
      get acceptsAll() {
        return !device.#filters || device.#filter.acceptsAll;
      },
      accepts: (frame: Uint8Array) => !this.#filters || this.#filter.accepts(frame, this.#mac),
    };
    const quotas = { receive: this.#receiveQuota, transmit: this.#transmitQuota };
    return this.end.ports.map((port, index) => {
      const isActive = () => !this.#ownsControl || index < this.#activePairs;
      return new QueuePair(port, this.loop, quotas, around, isActive);
    });
  }

  #controlTarget(): ControlTarget {
    return {
      filter: this.#filter,
      acked: this.#acked,
      queuePairs: this.#pairs.length,
      setMac: (mac) => {
        this.#mac = mac;
      },
      setActivePairs: (pairs) => {
        this.#activePairs = pairs;
        this.#eachPair((pair) => pair.attach());
      },
      onAnnounced: () => {
        this.#announces = false;
      },
    };
  }

  /** The first queue starts. */
  #wake(): void {
    if (this.#running) return;
    this.#running = true;
    this.end.activate(this.#acked);
    this.#eachPair((pair) => pair.resume());
    if (!this.#restored) return;
    this.#restored = false;
    // The network may still send this guest's frames to where it was. Who has the control queue tells the guest.
    if (!this.#ownsControl || (this.#acked & GUEST_ANNOUNCE) === 0n) return;
    this.#announces = true;
    this.#frontend?.configChange();
  }

  #eachPair(visit: (pair: QueuePair) => void): void {
    for (const pair of this.#pairs) visit(pair);
  }

  #capture(): object {
    return flattenNetState({
      mac: this.#mac,
      configuredMac: this.#configured.mac,
      mtu: this.#mtu,
      activePairs: this.#activePairs,
      filter: this.#filter.capture(),
      receive: this.#receiveQuota.capture(),
      transmit: this.#transmitQuota.capture(),
      ports: this.#pairs.map((pair) => pair.capture()),
    });
  }

  #apply(state: NetState): void {
    this.#mac = state.mac;
    this.#configured.mac = state.configuredMac;
    this.#mtu = state.mtu;
    this.#activePairs = state.activePairs;
    this.#filter.restore(state.filter);
    this.#receiveQuota.restore(state.receive);
    this.#transmitQuota.restore(state.transmit);
    for (const [pair, port] of state.ports.entries()) this.#pairs[pair]!.restore(port);
    this.#restored = true;
  }
}
