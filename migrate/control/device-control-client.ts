import type { z } from "zod";
import { PeerError, VhuError } from "../../src/errors.ts";
import { connectUnix, disposeAll, type Fd, type UnixSocket } from "../../src/sys/mod.ts";
import { ControlConnection } from "./control-connection.ts";
import {
  changesAnswer,
  type DeviceControlRequest,
  type DeviceStatus,
  type DeviceStatusRequest,
  deviceControlAnswer,
  deviceStatus,
  trackingAnswer,
} from "./device-control-protocol.ts";

export interface ChangedRange {
  readonly offset: number;
  readonly sizeBytes: number;
}

/** Longer than a device's rings may take to drain (DEFAULT_DRAIN_TIMEOUT_MS). */
const TIMEOUT_MS = 60_000;

/** An error that the device reported: its code and exit status are the device's. */
class DeviceControlError extends VhuError {
  override readonly exitStatus: number;
  constructor(error: { readonly code: string; readonly message: string; readonly exitStatus: number }) {
    super(error.code, error.message);
    this.exitStatus = error.exitStatus;
  }
}

/** Talks to the control socket of a `vhu device run`. */
export class DeviceControlClient implements Disposable {
  private constructor(
    readonly connection: ControlConnection,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** @throws PeerError when no device listens there */
  static connect(path: string, signal?: AbortSignal): DeviceControlClient {
    return DeviceControlClient.over(connectUnix(path), signal);
  }

  /** Takes a socket that the device serves already. */
  static over(socket: UnixSocket, signal?: AbortSignal): DeviceControlClient {
    return new DeviceControlClient(new ControlConnection(socket, "the device"), signal);
  }

  /** @throws PeerError, or what the device reports */
  async status(request: DeviceStatusRequest): Promise<DeviceStatus> {
    return await this.#ask(request, deviceStatus);
  }

  /** From now on `changes` tells what is written. False where somebody else is told. */
  async track(): Promise<boolean> {
    return (await this.#ask({ command: "track" }, trackingAnswer)).tracks;
  }

  /** What was written since the last time; undefined where all may have been. */
  async changes(): Promise<readonly ChangedRange[] | undefined> {
    return (await this.#ask({ command: "changes" }, changesAnswer)).ranges;
  }

  /** The device's image, for reading. The caller's to close. */
  async image(): Promise<Fd> {
    const { fds } = await this.#request({ command: "image" });
    const [image, ...others] = fds;
    disposeAll(others);
    if (image === undefined) throw new PeerError("the device sent no image");
    return image;
  }

  /** Ends the connection, and with it its hold. */
  [Symbol.dispose](): void {
    this.connection[Symbol.dispose]();
  }

  async #ask<T>(request: DeviceControlRequest, answer: z.ZodType<T>): Promise<T> {
    const { result, fds } = await this.#request(request);
    disposeAll(fds);
    const parsed = answer.safeParse(result);
    if (!parsed.success) throw new PeerError("the device's answer is not one of vhu's control protocol");
    return parsed.data;
  }

  async #request(request: DeviceControlRequest): Promise<{ result: unknown; fds: Fd[] }> {
    this.connection.send(request);
    const { body, fds } = await this.connection.receiveAsync(TIMEOUT_MS, this.signal);
    const answer = deviceControlAnswer.safeParse(body);
    if (answer.data?.ok) return { result: answer.data.result, fds };
    disposeAll(fds);
    if (answer.success) throw new DeviceControlError(answer.data.error);
    throw new PeerError("the device's answer is not one of vhu's control protocol");
  }
}
