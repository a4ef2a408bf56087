import { expect } from "bun:test";
import { BackendSession, HANDLER_FEATURES, type SessionEnd } from "../../src/backend/mod.ts";
import { Connection, type Frame } from "../../src/connection/mod.ts";
import { GuestMemory } from "../../src/memory/mod.ts";
import {
  createEventFd,
  createMemfd,
  createPipe,
  Deadline,
  disposeAll,
  EventLoop,
  type Fd,
  NativeBuffer,
  readSome,
  UnixSocket,
  writeSome,
} from "../../src/sys/mod.ts";
import {
  dialects,
  frontendMessages,
  headerFlag,
  protocolFeature,
  REPLY_FLAGS,
  tableFor,
  virtioFeature,
} from "../../src/wire/mod.ts";
import { saveDevice } from "./device-state.ts";
import { RecordedGuest, type RecordedRing, type ReplayCounts } from "./recorded-guest.ts";
import { payloadOf, type RecordedExchange, type RecordedMessage } from "./recorded-session.ts";
import { TestDevice } from "./test-device.ts";

const REPLY_TIMEOUT_MS = 10_000;
/** Turns in which the back-end works off a message that it does not answer. */
const SETTLE_TURNS = 4;
const PAGE_BYTES = 4096;
const CONFIG_BYTES = 60;

/** Offers what the recorded back-end offered. */
class RecordedDevice extends TestDevice {
  override readonly protocolFeatures =
    protocolFeature.CONFIG | protocolFeature.HOST_NOTIFIER | protocolFeature.BACKEND_REQ;
  override config = new Uint8Array(CONFIG_BYTES);
}

/** "fs": virtiofsd was recorded, which speaks rust-vmm's dialect; "blk": qemu-storage-daemon, libvhost-user's. */
export type RecordedKind = "blk" | "fs";

/** Plays a VM's sessions against our back-end; throws at the first difference. */
export function replay(sessions: readonly (readonly RecordedExchange[])[], kind: RecordedKind): ReplayCounts {
  using guest = new RecordedGuest(sessions);
  for (const session of sessions) {
    using player = new SessionPlayer(guest, kind, session);
    player.run();
  }
  return guest.counts;
}

/** One session: sends what the front-end sent, as it sent it, and compares what comes back with what came back then. */
class SessionPlayer implements Disposable {
  readonly #loop = new EventLoop();
  readonly #device: RecordedDevice;
  readonly #session: BackendSession;
  readonly #connection: Connection;
  readonly #fds: Fd[] = [];
  /** Our end of a state transfer. */
  #stateEnd: Fd | undefined;
  #log: GuestMemory | undefined;
  #end: SessionEnd | undefined;

  constructor(
    readonly guest: RecordedGuest,
    kind: RecordedKind,
    readonly exchanges: readonly RecordedExchange[],
  ) {
    const [ours, theirs] = UnixSocket.pair();
    this.#connection = new Connection(ours);
    this.#device = new RecordedDevice(
      Number(this.#recorded("GET_QUEUE_NUM").words[0]),
      this.#offered & ~HANDLER_FEATURES,
    );
    const table = tableFor(dialects[kind === "fs" ? "rust-vmm-0.16" : "spec"]);
    const options = { table, withoutFeatures: virtioFeature.RING_PACKED };
    this.#session = new BackendSession(theirs, this.#device, this.#loop, (end) => (this.#end = end), options);
  }

  get #offered(): bigint {
    return BigInt(this.#recorded("GET_FEATURES").words[0]!);
  }

  run(): void {
    for (const [position, { request, reply }] of this.exchanges.entries()) {
      this.#beforeSending(request, position);
      this.#send(request);
      this.#afterSending(request);
      if (reply === undefined) this.#expectNothing(request);
      else this.#expectReply(request, reply);
      this.#afterReply(request);
    }
    this.#connection[Symbol.dispose]();
    for (let turns = 0; turns < SETTLE_TURNS; turns++) this.#loop.runOnce(0);
    expect(this.#end).toEqual({ kind: "disconnected" });
  }

  #recorded(name: string): RecordedMessage {
    return this.exchanges.find(({ request }) => request.name === name)!.reply!;
  }

  #send(request: RecordedMessage): void {
    const payload = payloadOf(request);
    expect(payload.length, `line ${request.line}: payload`).toBe(request.sizeBytes);
    const fds = request.fdCount === 0 ? [] : [this.#fdFor(request)];
    const flags = headerFlag.VERSION | (request.needsReply ? headerFlag.NEED_REPLY : 0);
    this.#connection.send(frontendMessages[request.name].number, flags, payload, fds);
    // What the back-end got is its own; only kicks stay with the guest.
    if (request.name !== "SET_VRING_KICK") disposeAll(fds);
    this.guest.counts.messages++;
  }

  #fdFor(request: RecordedMessage): Fd {
    switch (request.name) {
      case "ADD_MEM_REG":
        return this.guest.ram.duplicate();
      case "SET_LOG_BASE":
        return this.#openLog(Number(request.fields.mmap_size));
      case "SET_BACKEND_REQ_FD": {
        const [ours, theirs] = UnixSocket.pair();
        this.#fds.push(ours.fd);
        return theirs.fd;
      }
      case "SET_DEVICE_STATE_FD": {
        const { readEnd, writeEnd } = createPipe();
        const isSave = request.fields.direction === "SAVE";
        this.#stateEnd = isSave ? readEnd : writeEnd;
        return isSave ? writeEnd : readEnd;
      }
      default: {
        const fd = createEventFd(`${request.name} of line ${request.line}`);
        if (request.name === "SET_VRING_KICK") {
          this.#fds.push(fd);
          this.guest.ring(Number(request.fields.vq)).kick = fd;
        }
        return fd;
      }
    }
  }

  #openLog(sizeBytes: number): Fd {
    this.#log?.[Symbol.dispose]();
    const fd = createMemfd("dirty log", sizeBytes);
    this.#log = new GuestMemory();
    this.#log.addRegion({ guestAddress: 0, sizeBytes, userAddress: 0, mmapOffset: 0 }, fd.duplicate());
    return fd;
  }

  /** The guest works until its rings are disabled, and gets as far as it got then. */
  #beforeSending(request: RecordedMessage, position: number): void {
    const { fields } = request;
    if (request.name === "SET_VRING_KICK") this.guest.prepareRing(this.guest.ring(Number(fields.vq)));
    if (request.name !== "SET_VRING_ENABLE" || fields.val !== "0") return;
    const stop = this.exchanges
      .slice(position)
      .find((later) => later.request.name === "GET_VRING_BASE" && later.request.fields.vq === fields.vq);
    const ring = this.guest.ring(Number(fields.vq));
    const moved = ring.base !== Number(stop!.reply!.fields.val);
    this.guest.advance(ring, Number(stop!.reply!.fields.val), () => this.#turn());
    if (moved && ring.isLogged) this.#expectLogged(ring);
  }

  #afterSending({ name, fields }: RecordedMessage): void {
    const ring = () => this.guest.ring(Number(fields.vq));
    if (name === "SET_VRING_NUM") ring().size = Number(fields.val);
    if (name === "SET_VRING_BASE") ring().base = Number(fields.val);
    if (name === "SET_VRING_ADDR") {
      const { desc, avail, used, log, flags } = fields;
      const addresses = {
        descriptor: Number(desc),
        available: Number(avail),
        used: Number(used),
        log: Number(log),
      };
      Object.assign(ring(), addresses, { isLogged: flags === "1" });
    }
  }

  #expectReply(request: RecordedMessage, recorded: RecordedMessage): void {
    const what = `line ${recorded.line}: the reply to ${request.name}`;
    const frame = this.#receive(what);
    using fds = frame.fds;
    expect(frame.request, what).toBe(frontendMessages[request.name].number);
    expect(frame.flags, what).toBe(REPLY_FLAGS);
    expect(frame.payload.length, `${what}: size`).toBe(recorded.sizeBytes);
    expect(fds.count, `${what}: fds`).toBe(recorded.fdCount);
    this.#compare(request, recorded, frame.payload, what);
    this.guest.counts.replies++;
  }

  #compare(request: RecordedMessage, recorded: RecordedMessage, payload: Uint8Array, what: string): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    switch (request.name) {
      case "GET_PROTOCOL_FEATURES": {
        // Ours has more of them.
        const wanted = BigInt(recorded.words[0]!);
        expect(view.getBigUint64(0, true) & wanted, what).toBe(wanted);
        return;
      }
      case "GET_CONFIG":
      case "SET_LOG_BASE":
        return;
      case "GET_VRING_BASE":
        expect([view.getUint32(0, true), view.getUint32(4, true)], what).toEqual([
          Number(recorded.fields.vq),
          Number(recorded.fields.val),
        ]);
        return;
      default:
        expect(view.getBigUint64(0, true), what).toBe(request.needsReply ? 0n : BigInt(recorded.words[0]!));
    }
  }

  /** A state goes through the pipe between the reply to SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE. */
  #afterReply(request: RecordedMessage): void {
    const end = this.#stateEnd;
    if (request.name !== "SET_DEVICE_STATE_FD" || end === undefined) return;
    if (request.fields.direction === "SAVE") this.#readState(end);
    else this.#writeState(end);
    end[Symbol.dispose]();
    this.#stateEnd = undefined;
  }

  #readState(end: Fd): void {
    const buffer = new NativeBuffer(65536);
    let sizeBytes = 0;
    const deadline = new Deadline(REPLY_TIMEOUT_MS);
    for (;;) {
      if (deadline.expired) throw new Error("the device state does not end");
      this.#turn();
      const count = readSome(end, buffer);
      if (count === 0) break;
      if (count !== "would-block") sizeBytes += count;
    }
    expect(sizeBytes).toBe(saveDevice(this.#device, { features: 0n }).length);
  }

  #writeState(end: Fd): void {
    const bytes = saveDevice(this.#device);
    const buffer = new NativeBuffer(bytes.length);
    buffer.bytes.set(bytes);
    expect(writeSome(end, buffer, 0, bytes.length)).toBe(bytes.length);
  }

  #expectLogged(ring: RecordedRing): void {
    const page = Math.floor(ring.log / PAGE_BYTES);
    const byte = new Uint8Array(1);
    this.#log!.read(Math.floor(page / 8), byte);
    expect((byte[0]! >> (page % 8)) & 1, "the used ring's page in the dirty log").toBe(1);
    this.guest.counts.loggedPages++;
  }

  #expectNothing(request: RecordedMessage): void {
    this.#turn();
    expect(this.#connection.receive(0), `line ${request.line}: ${request.name} got no reply then`).toBe(
      "nothing",
    );
  }

  #receive(what: string): Frame {
    const deadline = new Deadline(REPLY_TIMEOUT_MS);
    while (!deadline.expired && this.#end === undefined) {
      const frame = this.#connection.receive(0);
      if (typeof frame !== "string") return frame;
      this.#loop.runOnce(10);
    }
    throw new Error(
      `${what} does not come (${this.#end?.kind === "failed" ? this.#end.error.message : "no answer"})`,
    );
  }

  #turn(): void {
    for (let turns = 0; turns < SETTLE_TURNS; turns++) this.#loop.runOnce(0);
    if (this.#end?.kind === "failed") throw this.#end.error;
  }

  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
    this.#connection[Symbol.dispose]();
    this.#log?.[Symbol.dispose]();
    this.#stateEnd?.[Symbol.dispose]();
    disposeAll(this.#fds);
    this.#loop[Symbol.dispose]();
  }
}
