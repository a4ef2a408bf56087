/**
 * Stateful fuzz targets of the protocol: random legal and illegal messages, random fds, random cuts, in whatever state the
 * messages before have left, against a back-end with a device and memory, and against the server of back-end requests.
 *
 * `bun test/fuzz/protocol.ts [SEED [MESSAGES]]` runs both; seeds that found something go into corpus/protocol.
 */
import { BackendSession, type SessionEnd } from "../../src/backend/mod.ts";
import { VhuError } from "../../src/errors.ts";
import { type BackendRequestHandler, FrontendServer } from "../../src/frontend/mod.ts";
import {
  EventLoop,
  type Fd,
  Mapping,
  NativeBuffer,
  signalEvent,
  UnixSocket,
  WOULD_BLOCK,
} from "../../src/sys/mod.ts";
import {
  dialects,
  encodeHeader,
  HEADER_BYTES,
  headerFlag,
  payloads,
  protocolFeature,
  tableFor,
  virtioFeature,
} from "../../src/wire/mod.ts";
import { TestDevice } from "../support/test-device.ts";
import { randomNumbers } from "./mutate.ts";
import { checkNothingLeaked, FdPool, openFds, REGION_BYTES } from "./protocol-fds.ts";
import {
  backendTable,
  type FuzzMessage,
  frontendTable,
  pick,
  type Random,
  RING_BYTES,
  randomMessage,
  USER_BASE,
} from "./protocol-messages.ts";

export interface ProtocolFuzzReport {
  readonly messages: number;
  readonly sessions: number;
  /** Replies that came, and sessions that ended with an error. */
  readonly replies: number;
  readonly failures: number;
  /** Times that a queue was started: how deep it went. */
  readonly queueStarts: number;
  /** Memory of the process at each quarter, in MiB, after a collection. */
  readonly rssMiB: readonly number[];
}

/** Turns that everything must be done in: each step does a bounded amount of work. */
const TURNS_PER_STEP = 6;
const IDLE_TIMEOUT_MS = 5;

class OpenDevice extends TestDevice {
  override readonly protocolFeatures =
    Object.values(protocolFeature).reduce((mask, bit) => mask | bit, 0n) & ~protocolFeature.XEN_MMAP;
}

/** The peer's side of a socket: raw bytes and fds out, whatever comes in is thrown away. */
class RawPeer implements Disposable {
  readonly #buffer = new NativeBuffer(8192);
  replies = 0;
  isClosed = false;

  constructor(readonly socket: UnixSocket) {
    socket.setTimeouts({ sendMs: 1 });
  }

  send(message: FuzzMessage, pool: readonly Fd[], cut = Infinity): void {
    encodeHeader(this.#buffer.view, message.request, message.flags, message.payload.length);
    this.#buffer.bytes.set(message.payload, HEADER_BYTES);
    const sizeBytes = Math.min(HEADER_BYTES + message.payload.length, cut);
    try {
      this.socket.send(
        this.#buffer,
        0,
        sizeBytes,
        message.fds.map((index) => pool[index]!),
      );
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.isClosed = true;
    }
  }

  /** Reads all there is, and closes what fds came with it. */
  drain(): void {
    for (;;) {
      const fds: Fd[] = [];
      const count = this.socket.receive(this.#buffer, 0, 8192, fds, true);
      for (const fd of fds) fd[Symbol.dispose]();
      if (count === WOULD_BLOCK) return;
      if (count === 0) {
        this.isClosed = true;
        return;
      }
      this.replies++;
    }
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }
}

/** Runs `messages` messages that follow from `seed` alone. @throws Error when an invariant breaks */
export function fuzz(seed: number, messages: number): ProtocolFuzzReport {
  const random = randomNumbers(seed);
  const counts = { sessions: 0, replies: 0, failures: 0, queueStarts: 0 };
  const rssMiB: number[] = [];
  using pool = new FdPool();
  let done = 0;
  for (let quarter = 1; quarter <= 4; quarter++) {
    while (done < (messages * quarter) / 4) {
      pool.drainSockets();
      const before = openFds();
      done += oneSession(random, pool, counts, 1 + random(400));
      checkNothingLeaked(before, `seed ${seed}, after ${done} messages`);
      counts.sessions++;
    }
    Bun.gc(true);
    rssMiB.push(Math.round(process.memoryUsage.rss() / 2 ** 20));
  }
  return { messages: done, ...counts, rssMiB };
}

interface Counts {
  sessions: number;
  replies: number;
  failures: number;
  queueStarts: number;
}

function oneSession(random: Random, pool: FdPool, counts: Counts, most: number): number {
  using loop = new EventLoop();
  using memory = Mapping.ofFd(pool.memory, { sizeBytes: REGION_BYTES });
  const guest = new Uint8Array(memory.window(0, REGION_BYTES));
  const [ours, theirs] = UnixSocket.pair();
  using peer = new RawPeer(ours);
  const device = new OpenDevice(4, 0xffn | virtioFeature.ACCESS_PLATFORM);
  device.counter = 1;
  if (random(4) === 0) device.bulk = () => [new Uint8Array(1 << 20)];
  let end: SessionEnd | undefined;
  using session = new BackendSession(theirs, device, loop, (how) => (end = how), {
    deviceState: { idleTimeoutMs: IDLE_TIMEOUT_MS, channel: random(2) === 0 ? "own" : "frontend" },
  });
  let sent = 0;
  const settle = () => {
    for (let turn = 0; turn < TURNS_PER_STEP; turn++) loop.runOnce(0);
    peer.drain();
  };
  const send = (message: FuzzMessage, cut?: number) => {
    peer.send(message, pool.fds, cut);
    sent++;
    settle();
  };
  if (random(8) !== 0) {
    for (const message of handshake(random)) send(message);
    if (random(4) !== 0) for (const message of ringStart(random, random(2))) send(message);
  }
  while (sent < most && !peer.isClosed && end === undefined) {
    switch (random(24)) {
      case 0:
        scribble(guest, random);
        signalEvent(pick(random, pool.events));
        settle();
        break;
      case 1:
        for (const message of ringStart(random, random(4))) send(message);
        break;
      case 2:
        device.frontend?.configChange();
        settle();
        break;
      case 3:
        if (random(20) === 0) {
          const message = randomMessage(frontendTable, random, pool.fds.length);
          peer.send(message, pool.fds, 1 + random(HEADER_BYTES + message.payload.length));
          sent++;
          peer[Symbol.dispose]();
          loop.runOnce(0);
          peer.isClosed = true;
        }
        break;
      default:
        send(randomMessage(frontendTable, random, pool.fds.length));
    }
  }
  counts.replies += peer.replies;
  counts.queueStarts += device.calls.filter((call) => call.startsWith("start")).length;
  if (end?.kind === "failed") counts.failures++;
  session[Symbol.dispose]();
  return Math.max(sent, 1);
}

const NEED_REPLY = headerFlag.VERSION | headerFlag.NEED_REPLY;

function message(
  name: string,
  request: number,
  payload: Uint8Array = new Uint8Array(0),
  fds: readonly number[] = [],
): FuzzMessage {
  return { request, name, flags: NEED_REPLY, payload, fds };
}

/** What a decent front-end begins with. */
function handshake(random: Random): FuzzMessage[] {
  const virtio = virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1;
  const extra = pick(random, [
    0n,
    0n,
    virtioFeature.RING_PACKED,
    virtioFeature.RING_INDIRECT_DESC,
    virtioFeature.ACCESS_PLATFORM,
  ]);
  const all =
    Object.values(protocolFeature).reduce((mask, bit) => mask | bit, 0n) & ~protocolFeature.XEN_MMAP;
  const protocol = pick(random, [
    all,
    all & ~protocolFeature.GPA_ADDRESSES & ~protocolFeature.INBAND_NOTIFICATIONS,
  ]);
  const layout = { guestAddress: 0, sizeBytes: REGION_BYTES, userAddress: USER_BASE, mmapOffset: 0 };
  return [
    message("SET_OWNER", 3),
    message("SET_PROTOCOL_FEATURES", 16, payloads.value64.encode({ value: protocol })),
    message("SET_FEATURES", 2, payloads.value64.encode({ value: virtio | extra })),
    // The pool's third fd is the memory.
    message("SET_MEM_TABLE", 5, payloads.memoryTable.encode({ regions: [layout] }), [2]),
  ];
}

function ringStart(random: Random, index: number): FuzzMessage[] {
  const start = pick(random, [USER_BASE, USER_BASE, 0]) + index * RING_BYTES;
  const address = {
    index,
    flags: random(2),
    descriptor: start,
    available: start + 0x1000,
    used: start + 0x2000,
    log: 0,
  };
  return [
    message("SET_VRING_NUM", 8, payloads.vringState.encode({ index, num: pick(random, [16, 16, 1, 256]) })),
    message("SET_VRING_ADDR", 9, payloads.vringAddr.encode(address)),
    message("SET_VRING_CALL", 13, payloads.vringFd.encode({ index, noFd: false }), [1]),
    message("SET_VRING_KICK", 12, payloads.vringFd.encode({ index, noFd: false }), [random(2)]),
    message("SET_VRING_ENABLE", 18, payloads.vringState.encode({ index, num: 1 })),
  ];
}

/** A driver gone wild: descriptors, indices and ring entries, half of them plausible. */
function scribble(guest: Uint8Array, random: Random): void {
  const view = new DataView(guest.buffer);
  const start = random(4) * RING_BYTES;
  for (let count = random(8); count > 0; count--) {
    const descriptor = start + random(16) * 16;
    view.setBigUint64(
      descriptor,
      BigInt(pick(random, [0, 0x20000, REGION_BYTES - 4, REGION_BYTES, 2 ** 52])),
      true,
    );
    view.setUint32(descriptor + 8, pick(random, [0, 1, 64, 4096, 0xffffffff]), true);
    view.setUint16(descriptor + 12, pick(random, [0, 1, 2, 3, 4, 0x80, 0x8000, 0x8080, 0x8083]), true);
    view.setUint16(descriptor + 14, pick(random, [0, 1, 15, 16, 0xffff]), true);
    view.setUint16(start + 0x1000 + 4 + random(16) * 2, random(18), true);
  }
  const index = view.getUint16(start + 0x1002, true);
  view.setUint16(start + 0x1002, random(6) === 0 ? random(0x10000) : index + random(3), true);
}

/** The other direction: a back-end that sends what it likes to the server of its requests. */
export function fuzzRequests(seed: number, messages: number): ProtocolFuzzReport {
  const random = randomNumbers(seed);
  const counts = { sessions: 0, replies: 0, failures: 0, queueStarts: 0 };
  const rssMiB: number[] = [];
  using pool = new FdPool();
  const tables = [dialects.spec, dialects["crosvm-2024"]];
  let done = 0;
  for (let quarter = 1; quarter <= 4; quarter++) {
    while (done < (messages * quarter) / 4) {
      const before = openFds();
      const dialect = pick(random, tables);
      done += oneRequestSession(random, pool, counts, 1 + random(200), dialect);
      checkNothingLeaked(before, `seed ${seed}, after ${done} requests`);
      counts.sessions++;
    }
    Bun.gc(true);
    rssMiB.push(Math.round(process.memoryUsage.rss() / 2 ** 20));
  }
  return { messages: done, ...counts, rssMiB };
}

function oneRequestSession(
  random: Random,
  pool: FdPool,
  counts: Counts,
  most: number,
  dialect: (typeof dialects)["spec" | "crosvm-2024"],
): number {
  using loop = new EventLoop();
  const table = tableFor(dialect);
  const protocol = Object.values(table.protocolFeature).reduce((mask, bit) => mask | bit, 0n);
  const maybe = () => {
    if (random(4) === 0) throw new VhuError("FUZZ", "the handler refuses");
  };
  const handler: BackendRequestHandler = {
    configChange: maybe,
    vringCall: maybe,
    vringErr: maybe,
    iotlbMsg: maybe,
    hostNotifier: maybe,
    sharedObjectAdd: maybe,
    sharedObjectRemove: maybe,
    sharedObjectLookup: () => (random(2) === 0 ? undefined : pool.memory.duplicate()),
    shmemMap: maybe,
    shmemUnmap: maybe,
    gpuMap: maybe,
    externalMap: maybe,
  };
  const { server, backendEnd } = FrontendServer.create(loop, table, handler, random(8) === 0 ? 0n : protocol);
  using _server = server;
  using peer = new RawPeer(backendEnd);
  const messages = backendTable(dialect);
  let sent = 0;
  while (sent < most && !peer.isClosed) {
    const next = randomMessage(messages, random, pool.fds.length);
    const cut = random(100) === 0 ? 1 + random(HEADER_BYTES + next.payload.length) : undefined;
    peer.send(next, pool.fds, cut);
    sent++;
    if (cut !== undefined) peer[Symbol.dispose]();
    for (let turn = 0; turn < TURNS_PER_STEP; turn++) loop.runOnce(0);
    if (cut !== undefined) break;
    peer.drain();
  }
  counts.replies += peer.replies;
  if (peer.isClosed) counts.failures++;
  return sent;
}

if (import.meta.main) {
  const [seed = "1", messages = "100000"] = process.argv.slice(2);
  console.log(fuzz(Number(seed), Number(messages)));
  console.log(fuzzRequests(Number(seed), Number(messages)));
}
