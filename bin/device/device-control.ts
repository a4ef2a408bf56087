import { BlkDevice } from "../../devices/blk/mod.ts";
import {
  ControlConnection,
  type DeviceControlRequest,
  type DeviceStatus,
  deviceControlRequest,
} from "../../migrate/control/mod.ts";
import type { VhostUserDevice } from "../../src/backend/mod.ts";
import { CompatibilityError, StateError, UsageError, VhuError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import {
  disposeAll,
  type EventLoop,
  type Fd,
  O,
  openFile,
  POLL,
  UnixListener,
  UnixSocket,
} from "../../src/sys/mod.ts";

/** What the control socket controls. */
export interface Controlled {
  readonly device: VhostUserDevice;
  readonly service: { readonly isConnected: boolean; pauseAll(): void; resumeAll(): void };
  readonly loop: EventLoop;
  readonly logger: Logger;
}

interface Answer {
  readonly result?: unknown;
  /** Closed once it was sent. */
  readonly fd?: Fd;
}

/** Who controls it: whoever connects to a path, or the parent process by a socket that it has passed, and whom that attaches. */
export interface ControlPlaces {
  readonly path?: string | undefined;
  readonly parent?: UnixSocket | undefined;
}

/**
 * The control sockets of `vhu device run`, served on the device's own loop. The device is suspended for as long as somebody
 * said "until resumed", or a connection holds it: a copy that dies leaves the device running.
 */
export class DeviceControl implements Disposable {
  readonly #listener: UnixListener | undefined;
  readonly #parent: ControlConnection | undefined;
  readonly #connections = new Set<ControlConnection>();
  readonly #holders = new Set<ControlConnection>();
  #untilResumed = false;
  /** Who is told of what is written. */
  #tracker: ControlConnection | undefined;

  /** Takes the parent's socket. @throws UsageError when the path is taken */
  constructor(
    { path, parent }: ControlPlaces,
    readonly controlled: Controlled,
  ) {
    if (parent !== undefined) this.#parent = this.#add(parent, "the parent process");
    if (path === undefined) return;
    const listener = UnixListener.listen(path);
    this.#listener = listener;
    controlled.loop.watch(listener.fd, POLL.IN, () => this.#add(listener.accept(), "the client"));
  }

  [Symbol.dispose](): void {
    const listener = this.#listener;
    if (listener !== undefined) this.controlled.loop.unwatch(listener.fd);
    for (const connection of [...this.#connections]) this.#close(connection);
    listener?.[Symbol.dispose]();
  }

  get #isSuspended(): boolean {
    return this.#untilResumed || this.#holders.size > 0;
  }

  #add(socket: UnixSocket, peer: string): ControlConnection {
    const connection = new ControlConnection(socket, peer);
    this.#connections.add(connection);
    this.controlled.loop.watch(connection.socket.fd, POLL.IN, () => this.#onReadable(connection));
    return connection;
  }

  #onReadable(connection: ControlConnection): void {
    try {
      const message = connection.receive();
      if (message === undefined) {
        this.#end(connection);
        return;
      }
      using stack = new DisposableStack();
      stack.defer(() => disposeAll(message.fds));
      this.#serve(connection, message.body, message.fds);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.controlled.logger.warn(`control connection closed: ${error.message}`);
      this.#end(connection);
    }
  }

  #serve(connection: ControlConnection, body: unknown, fds: Fd[]): void {
    let answer: Answer = {};
    try {
      const request = deviceControlRequest.safeParse(body);
      if (!request.success)
        throw new UsageError(`not a control request: ${request.error.issues[0]?.message}`);
      if (request.data.command === "attach") {
        this.#attach(connection, fds);
        return;
      }
      answer = this.#handle(connection, request.data);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      const { code, message, exitStatus } = error;
      connection.send({ ok: false, error: { code, message, exitStatus } });
      return;
    }
    using _fd = answer.fd;
    connection.send({ ok: true, result: answer.result ?? {} }, answer.fd === undefined ? [] : [answer.fd]);
  }

  #attach(connection: ControlConnection, fds: Fd[]): void {
    if (connection !== this.#parent) throw new UsageError("only the parent process attaches others");
    const fd = fds.shift();
    if (fd === undefined) throw new UsageError("the request came without the socket to attach");
    this.#add(new UnixSocket(fd), "the client");
  }

  #handle(
    connection: ControlConnection,
    request: Exclude<DeviceControlRequest, { command: "attach" }>,
  ): Answer {
    switch (request.command) {
      case "status":
        return { result: this.#status() };
      case "suspend":
        if (!this.#isSuspended) this.#suspend();
        if (request.hold === "connection") this.#holders.add(connection);
        else this.#untilResumed = true;
        return { result: this.#status() };
      case "resume":
        this.#release(() => {
          this.#untilResumed = false;
        });
        return { result: this.#status() };
      case "resize":
        this.#disk().refreshCapacity();
        return { result: this.#status() };
      case "track":
        return { result: { tracks: this.#track(connection) } };
      case "changes":
        if (this.#tracker !== connection) throw new StateError("this connection tracks no changes");
        return { result: { ranges: this.#disk().changes.take() } };
      case "image":
        return this.#image();
    }
  }

  #status(): DeviceStatus {
    const { device, service } = this.controlled;
    const status: DeviceStatus = {
      type: device.deviceType,
      pid: process.pid,
      runState: this.#isSuspended ? "suspended" : "running",
      holds: this.#holders.size,
      frontendConnected: service.isConnected,
    };
    if (!(device instanceof BlkDevice)) return status;
    const { path, capacityBytes, readOnly } = device.image;
    return { ...status, image: { path, capacityBytes, readOnly } };
  }

  /** Opened anew through /proc: a client must not get our right to write, and the path may name another file by now. */
  #image(): Answer {
    return { fd: openFile(`/proc/self/fd/${this.#disk().image.fd.number}`, O.RDONLY) };
  }

  #disk(): BlkDevice {
    const { device } = this.controlled;
    if (device instanceof BlkDevice) return device;
    throw new CompatibilityError(`a ${device.deviceType} device has no image`);
  }

  #track(connection: ControlConnection): boolean {
    const { changes } = this.#disk();
    if (this.#tracker !== undefined && this.#tracker !== connection) return false;
    this.#tracker = connection;
    changes.start();
    this.controlled.logger.info("what is written is tracked for a copy");
    return true;
  }

  #suspend(): void {
    this.controlled.service.pauseAll();
    this.controlled.logger.info("suspended by the control socket");
  }

  /** The device goes on when `change` took away the last reason against it. */
  #release(change: () => void): void {
    const wasSuspended = this.#isSuspended;
    change();
    if (!wasSuspended || this.#isSuspended) return;
    this.controlled.service.resumeAll();
    this.controlled.logger.info("resumed");
  }

  #end(connection: ControlConnection): void {
    this.#release(() => this.#holders.delete(connection));
    this.#close(connection);
  }

  #close(connection: ControlConnection): void {
    if (this.#tracker === connection) {
      this.#tracker = undefined;
      this.#disk().changes.stop();
      this.controlled.logger.info("nothing is tracked any more");
    }
    this.controlled.loop.unwatch(connection.socket.fd);
    connection[Symbol.dispose]();
    this.#connections.delete(connection);
    this.#holders.delete(connection);
  }
}
