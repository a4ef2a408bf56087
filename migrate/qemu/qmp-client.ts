import { fstatSync } from "node:fs";
import type { z } from "zod";
import { FormatError, PeerError } from "../../src/errors.ts";
import { DEFAULT_REQUEST_TIMEOUT_MS, MAX_QMP_EVENTS } from "../../src/limits.ts";
import {
  connectUnix,
  Deadline,
  disposeAll,
  type Fd,
  NativeBuffer,
  POLL,
  type UnixSocket,
  WOULD_BLOCK,
  waitReady,
} from "../../src/sys/mod.ts";
import { QmpError } from "./qmp-error.ts";
import { QmpLines } from "./qmp-lines.ts";
import { type QmpEvent, type QmpGreeting, qmpGreeting, qmpMessage, qmpNothing } from "./qmp-messages.ts";

export interface QmpRequest<Schema extends z.ZodType> {
  /** What the answer must look like. */
  readonly answer: Schema;
  readonly arguments?: Readonly<Record<string, unknown>>;
  /** An fd for the command (`getfd`, `add-fd`); it stays the caller's. */
  readonly fd?: Fd;
  /** Out of band: QEMU runs it at once, while other commands wait. Few commands can. */
  readonly outOfBand?: boolean;
  /** 5 s unless told. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface QmpConnectOptions {
  readonly greetingTimeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A monitor serves one client: a second one connects, and never gets a greeting (tried with QEMU 10.0.2). */
const GREETING_TIMEOUT_MS = 3_000;
const RECEIVE_BYTES = 64 * 1024;
/** How often deadlines and signals are looked at while nothing comes. */
const TURN_MS = 20;

/**
 * Talks to a QEMU monitor. Requests may overlap; each has a deadline of its own.
 *
 * @example
 * using client = await QmpClient.connect("/run/web.qmp");
 * const { status } = await client.request("query-status", { answer: qmpAnswers.status });
 */
export class QmpClient implements Disposable {
  readonly #socket: UnixSocket;
  /** Of the monitor's socket, as it was given. */
  readonly path: string;
  readonly #lines = new QmpLines();
  readonly #buffer = new NativeBuffer(RECEIVE_BYTES);
  readonly #waiting = new Set<string>();
  readonly #answers = new Map<string, unknown>();
  readonly #refusals = new Map<string, { class: string; desc: string }>();
  #events: QmpEvent[] = [];
  #greeting: QmpGreeting | undefined;
  #turn: Promise<void> | undefined;
  #isEnded = false;
  #lastId = 0;

  private constructor(socket: UnixSocket, path: string) {
    this.#socket = socket;
    this.path = path;
  }

  /**
   * Connects, waits for the greeting and negotiates.
   * @throws PeerError when nobody listens, or another client holds the monitor; FormatError when it is no monitor
   */
  static async connect(path: string, options: QmpConnectOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(connectUnix(path), path);
    try {
      await client.#begin(options);
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /** QEMU's version, e.g. "10.0.2", and its package. */
  get version(): { readonly text: string; readonly package: string } {
    const { qemu, package: packageName } = this.#begun.version;
    return { text: `${qemu.major}.${qemu.minor}.${qemu.micro}`, package: packageName };
  }

  get hasOutOfBand(): boolean {
    return this.#begun.capabilities.includes("oob");
  }

  /** Whoever listens at the socket: QEMU, or what gave it the socket (libvirt). */
  get peerPid(): number {
    return this.#socket.peerCredentials().pid;
  }

  get peerUser(): number {
    return this.#socket.peerCredentials().uid;
  }

  /** Of our end of the connection: the kernel knows by it who has the other. */
  get socketInode(): number {
    return fstatSync(this.#socket.fd.number).ino;
  }

  /**
   * Runs a command.
   *
   * @throws QmpError when QEMU refuses it, FormatError when the answer has another form, PeerError when none comes
   */
  async request<Schema extends z.ZodType>(
    command: string,
    request: QmpRequest<Schema>,
  ): Promise<z.infer<Schema>> {
    const { timeoutMs = DEFAULT_REQUEST_TIMEOUT_MS, signal } = request;
    this.#lastId += 1;
    const id = `vhu-${this.#lastId}`;
    const verb = request.outOfBand ? "exec-oob" : "execute";
    this.#waiting.add(id);
    try {
      this.#send({ [verb]: command, arguments: request.arguments, id }, request.fd);
      const isThere = () => this.#answers.has(id) || this.#refusals.has(id);
      if (!(await this.#pump(isThere, timeoutMs, signal))) {
        throw new PeerError(`QEMU did not answer ${command} within ${timeoutMs} ms (${this.path})`);
      }
      const refusal = this.#refusals.get(id);
      if (refusal !== undefined) throw new QmpError(command, refusal.class, refusal.desc);
      return parse(request.answer, this.#answers.get(id), `the answer to ${command}`);
    } finally {
      this.#waiting.delete(id);
      this.#answers.delete(id);
      this.#refusals.delete(id);
    }
  }

  /** The events since the last call; without waiting. */
  takeEvents(): QmpEvent[] {
    this.#drain();
    return this.#events.splice(0);
  }

  /**
   * Waits for an event; those before it are dropped. @throws PeerError when none comes
   */
  async waitForEvent(
    name: string,
    timeoutMs: number,
    isWanted: (data: unknown) => boolean = () => true,
    signal?: AbortSignal,
  ): Promise<QmpEvent> {
    const find = () => this.#events.findIndex((event) => event.name === name && isWanted(event.data));
    if (await this.#pump(() => find() >= 0, timeoutMs, signal)) {
      return this.#events.splice(0, find() + 1).at(-1) as QmpEvent;
    }
    throw new PeerError(`QEMU sent no event ${name} within ${timeoutMs} ms (${this.path})`);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  async #begin({ greetingTimeoutMs = GREETING_TIMEOUT_MS, signal }: QmpConnectOptions): Promise<void> {
    if (!(await this.#pump(() => this.#greeting !== undefined, greetingTimeoutMs, signal))) {
      throw new PeerError(
        `no greeting from ${this.path} within ${greetingTimeoutMs} ms: another client holds this monitor; ` +
          "end it, or give QEMU a second -qmp socket",
        { details: { path: this.path } },
      );
    }
    await this.request("qmp_capabilities", {
      answer: qmpNothing,
      arguments: this.hasOutOfBand ? { enable: ["oob"] } : {},
      signal,
    });
  }

  get #begun(): QmpGreeting {
    if (this.#greeting === undefined) throw new PeerError("the monitor has not greeted yet");
    return this.#greeting;
  }

  #send(message: Readonly<Record<string, unknown>>, fd: Fd | undefined): void {
    const json = new TextEncoder().encode(`${JSON.stringify(message)}\n`);
    const buffer = new NativeBuffer(json.length);
    buffer.bytes.set(json);
    for (let sent = 0; sent < json.length; ) {
      const fds = sent === 0 && fd !== undefined ? [fd] : [];
      const count = this.#sendSome(buffer, sent, fds);
      if (count === WOULD_BLOCK) throw new PeerError(`QEMU does not read from its monitor (${this.path})`);
      sent += count;
    }
  }

  #sendSome(buffer: NativeBuffer, offset: number, fds: readonly Fd[]): number {
    try {
      return this.#socket.send(buffer, offset, buffer.sizeBytes - offset, fds);
    } catch (cause) {
      if (!(cause instanceof PeerError)) throw cause;
      throw new PeerError(`QEMU closed its monitor (${this.path}): it has ended`, {
        reconnect: true,
        cause,
      });
    }
  }

  /** Takes what comes until `isDone`; false when that did not happen in time. */
  async #pump(isDone: () => boolean, timeoutMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const deadline = new Deadline(timeoutMs);
    this.#drain();
    for (;;) {
      if (isDone()) return true;
      if (this.#isEnded) throw new PeerError(`QEMU closed its monitor (${this.path})`, { reconnect: true });
      if (deadline.expired) return false;
      // Requests that overlap wait together: two loops of polls would leave timers no turn (seen).
      this.#turn ??= this.#receive();
      await this.#turn;
      signal?.throwIfAborted();
    }
  }

  async #receive(): Promise<void> {
    try {
      await waitReady(this.#socket.fd, POLL.IN, new Deadline(TURN_MS));
      this.#drain();
    } finally {
      this.#turn = undefined;
    }
  }

  #drain(): void {
    const fds: Fd[] = [];
    while (!this.#isEnded) {
      const count = this.#socket.receive(this.#buffer, 0, RECEIVE_BYTES, fds, true);
      // No monitor sends fds; what came is not kept open.
      disposeAll(fds.splice(0));
      if (count === WOULD_BLOCK) return;
      if (count === 0) this.#isEnded = true;
      for (const message of this.#lines.push(this.#buffer.bytes.subarray(0, count))) this.#dispatch(message);
    }
  }

  #dispatch(json: unknown): void {
    if (this.#greeting === undefined) {
      this.#greeting = parse(qmpGreeting, json, "the greeting").QMP;
      return;
    }
    const message = parse(qmpMessage, json, "a message");
    if ("event" in message) {
      if (this.#events.length === MAX_QMP_EVENTS) this.#events.shift();
      const { seconds, microseconds } = message.timestamp as { seconds: number; microseconds: number };
      const atMs = seconds * 1000 + microseconds / 1000;
      this.#events.push({ name: String(message.event), data: message.data, atMs });
      return;
    }
    const { id } = message as { id?: string };
    // The answer to a request whose deadline is over: nobody waits for it.
    if (id !== undefined && !this.#waiting.has(id)) return;
    if ("return" in message) this.#answers.set(id as string, message.return);
    else this.#refuse(id, message.error as { class: string; desc: string });
  }

  /** A refusal without an id is about bytes that QEMU could not read as a request: ours always have one. */
  #refuse(id: string | undefined, error: { class: string; desc: string }): void {
    if (id === undefined) throw new FormatError(`the monitor answers "${error.desc}" to nothing`, "QMP");
    this.#refusals.set(id, error);
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, json: unknown, what: string): z.infer<Schema> {
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue?.path.join(".") ?? "";
  throw new FormatError(
    `${what} is not of the expected form${path === "" ? "" : ` at ${path}`}: ${issue?.message}`,
    "QMP",
  );
}
