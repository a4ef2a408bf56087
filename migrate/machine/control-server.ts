import { StateError, UsageError, VhuError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import {
  disposeAll,
  type EventLoop,
  type Fd,
  POLL,
  UnixListener,
  type UnixSocket,
} from "../../src/sys/mod.ts";
import { ControlConnection } from "../control/mod.ts";
import { type ControlRequest, controlRequest } from "./control-protocol.ts";
import type { DirtyReader } from "./dirty-tracking.ts";
import type { MachineHost } from "./machine-host.ts";
import { stateBytes, stateFd } from "./state-memfd.ts";

interface Answer {
  readonly result?: unknown;
  /** Closed once they were sent. */
  readonly fds?: readonly Fd[];
}

/** One client of the control socket. */
class Session implements Disposable {
  /** This connection suspended the machine and asked for it to go on when the connection ends. */
  holds = false;
  /** This connection loads a machine and has not finished: when it ends, the machine that it built ends with it. */
  loads = false;
  isOpen = true;
  /** This connection has slowed the machine down. */
  throttles = false;
  /** What has changed since this connection last asked. */
  dirty: DirtyReader | undefined;
  readonly connection: ControlConnection;

  constructor(socket: UnixSocket) {
    this.connection = new ControlConnection(socket);
  }

  [Symbol.dispose](): void {
    this.isOpen = false;
    this.dirty?.[Symbol.dispose]();
    this.dirty = undefined;
    this.connection[Symbol.dispose]();
  }
}

type MoveRequest = Exclude<
  ControlRequest,
  { command: "status" | "describe" | "suspend" | "resume" | "stop" | "verify" }
>;

type LoadRequest = Extract<ControlRequest, { command: "expect" | "build" | "start" | "keep-prepared" }>;

/** Serves a machine's control socket on the machine's own loop. */
export class ControlServer implements Disposable {
  readonly #listener: UnixListener;
  readonly #sessions = new Set<Session>();

  constructor(
    path: string,
    readonly host: MachineHost,
    readonly loop: EventLoop,
    readonly logger: Logger = silentLogger,
  ) {
    this.#listener = UnixListener.listen(path);
  }

  /** Begins to answer. Until then clients wait, so that nobody finds a machine that is half started. */
  serve(): void {
    this.loop.watch(this.#listener.fd, POLL.IN, () => this.#accept());
  }

  [Symbol.dispose](): void {
    this.loop.unwatch(this.#listener.fd);
    for (const session of [...this.#sessions]) this.#close(session);
    this.#listener[Symbol.dispose]();
  }

  #accept(): void {
    const session = new Session(this.#listener.accept());
    this.#sessions.add(session);
    this.loop.watch(session.connection.socket.fd, POLL.IN, () => this.#onReadable(session));
  }

  #onReadable(session: Session): void {
    try {
      const message = session.connection.receive();
      if (message === undefined) this.#end(session);
      else this.#serve(session, message.body, message.fds);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.logger.warn(`control connection closed: ${error.message}`);
      this.#end(session);
    }
  }

  #serve(session: Session, body: unknown, fds: Fd[]): void {
    let answer: Answer = {};
    const { id, ...rest } = (body ?? {}) as { readonly id?: unknown };
    try {
      const request = controlRequest.safeParse(rest);
      if (!request.success)
        throw new UsageError(`not a control request: ${request.error.issues[0]?.message}`);
      answer = this.#handle(session, request.data, fds) ?? {};
      if (session.isOpen) session.connection.send({ id, ok: true, result: answer.result ?? {} }, answer.fds);
      // It hung up while the machine waited for a back-end and turned the loop.
      else this.#letGo(session);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      const { code, message, exitStatus } = error;
      if (session.isOpen) session.connection.send({ id, ok: false, error: { code, message, exitStatus } });
    } finally {
      disposeAll(answer.fds ?? []);
      disposeAll(fds);
    }
  }

  #handle(session: Session, request: ControlRequest, fds: Fd[]): Answer | undefined {
    const { host } = this;
    switch (request.command) {
      case "status":
        return { result: host.status() };
      case "describe":
        return { result: { config: host.machine.config } };
      case "suspend":
        host.machine.suspend();
        session.holds = request.hold === "connection";
        return undefined;
      case "resume":
        if (host.runState === "prepared") host.machine.start();
        else host.machine.resume();
        session.holds = false;
        session.loads = false;
        return undefined;
      case "stop":
        host.stop();
        return undefined;
      case "verify":
        return { result: host.machine.verify() };
      default:
        return this.#handleMove(session, request, fds);
    }
  }

  /** What a machine is copied and built with. */
  #handleMove(session: Session, request: MoveRequest, fds: Fd[]): Answer | undefined {
    const { host } = this;
    switch (request.command) {
      case "export": {
        const { description, machineState } = host.export();
        const fds = [host.machine.memory.fd.duplicate(), stateFd(machineState)];
        const changed = request.base === undefined ? undefined : host.changedSince(request.base);
        return { result: description, fds: changed === undefined ? fds : [...fds, stateFd(changed.bytes)] };
      }
      case "checkpoint": {
        const obstacle = host.setCheckpoint(request.root, request.runCount);
        return { result: obstacle === undefined ? {} : { obstacle } };
      }
      case "precopy-begin":
        return this.#beginPrecopy(session, request.base);
      case "precopy-take":
      case "precopy-end":
        return this.#precopy(session, request.command);
      case "throttle":
        host.machine.throttle(request.percent);
        session.throttles = request.percent > 0;
        return undefined;
      case "release":
        host.machine.release();
        session.holds = false;
        return undefined;
      case "reclaim":
        host.machine.reclaim();
        session.holds = false;
        session.loads = false;
        return undefined;
      case "state-begin": {
        // Our copy must go: the end of the stream is seen only when every copy of the writing end is closed.
        using theirs = take(fds);
        const own = host.machine
          .device(request.device)
          .frontend.client.setDeviceStateFd(request.direction, theirs);
        return { result: { ownFd: own !== undefined }, fds: own === undefined ? [] : [own] };
      }
      case "device-control":
        return { fds: [host.machine.device(request.device).openControl().fd] };
      case "state-check":
        host.machine
          .device(request.device)
          .frontend.client.checkDeviceStateInLine(DEFAULT_TRANSFER_IDLE_TIMEOUT_MS);
        return undefined;
      default:
        return this.#handleLoad(session, request, fds);
    }
  }

  #handleLoad(session: Session, request: LoadRequest, fds: Fd[]): Answer | undefined {
    const { host } = this;
    switch (request.command) {
      case "expect":
        host.expect(request.config);
        return undefined;
      case "build": {
        session.loads = true;
        const state = stateBytes(fdAt(fds, 1));
        host.build(request.config, take(fds), state);
        return undefined;
      }
      case "start":
        host.machine.start();
        session.loads = false;
        return undefined;
      case "keep-prepared":
        session.loads = false;
        return undefined;
    }
  }

  #beginPrecopy(session: Session, base: string | undefined): Answer {
    const { machine } = this.host;
    session.dirty?.[Symbol.dispose]();
    session.dirty = machine.dirty.open();
    // In this order, nothing that is written meanwhile is in neither.
    const changed = base === undefined ? undefined : this.host.changedSince(base);
    return {
      result: { memoryBytes: machine.memory.sizeBytes },
      fds: [machine.memory.fd.duplicate(), ...(changed === undefined ? [] : [stateFd(changed.bytes)])],
    };
  }

  #precopy(session: Session, command: "precopy-take" | "precopy-end"): Answer {
    const { machine } = this.host;
    switch (command) {
      case "precopy-take":
        if (session.dirty === undefined) throw new StateError("no pre-copy has begun on this connection");
        return { fds: [stateFd(session.dirty.take().bytes)] };
      case "precopy-end":
        session.dirty?.[Symbol.dispose]();
        session.dirty = undefined;
        machine.throttle(0);
        return {};
    }
  }

  /** The client is gone. What it held suspended goes on: a save that dies leaves the machine running. */
  #end(session: Session): void {
    this.#close(session);
    this.#letGo(session);
  }

  #letGo(session: Session): void {
    if (session.throttles) this.host.machine.throttle(0);
    const abandoned =
      session.loads || (this.host.options.endsWithLoader && this.host.runState === "incoming");
    if (abandoned) {
      this.logger.error("the connection that loaded the machine has ended before it was complete");
      this.host.stop();
    }
    if (!session.holds || this.host.runState !== "suspended") return;
    this.logger.warn("the connection that held the machine suspended has ended; the machine goes on");
    this.host.machine.resume();
  }

  #close(session: Session): void {
    this.loop.unwatch(session.connection.socket.fd);
    session[Symbol.dispose]();
    this.#sessions.delete(session);
  }
}

function fdAt(fds: readonly Fd[], index: number): Fd {
  const fd = fds[index];
  if (fd === undefined) throw new UsageError("the control request came without the file descriptor it needs");
  return fd;
}

function take(fds: Fd[]): Fd {
  const fd = fdAt(fds, 0);
  fds.shift();
  return fd;
}
