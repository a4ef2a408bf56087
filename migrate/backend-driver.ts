import { CompatibilityError } from "../src/errors.ts";
import { baseFeatures, type DeviceType, deviceTypes, VhostUserFrontend } from "../src/frontend/mod.ts";
import { sniffState } from "../src/state/mod.ts";
import { connectUnix, EventLoop, executableOf } from "../src/sys/mod.ts";
import type { MoveOptions, PreflightCheck, VmDescription, VmDriver, VmSink, VmSource } from "./driver.ts";
import type { SnapshotDevice, SnapshotManifest } from "./snapshot/mod.ts";

/** vhost-user tells no type: without `--type` it stays unknown. */
const UNKNOWN_TYPE: DeviceType = { name: "unknown", id: 0, minQueues: 1 };
const DEVICE_ID = 0;

/**
 * A back-end by itself, without a VM around it: its device state can be fetched and given. The connection is the session:
 * a back-end that serves one front-end only ends with it.
 */
export class BackendDriver implements VmDriver {
  readonly #loop = new EventLoop();
  readonly #frontend: VhostUserFrontend;
  readonly #executable: string | undefined;
  readonly #type: DeviceType;

  constructor(
    readonly socketPath: string,
    typeName?: string,
  ) {
    using stack = new DisposableStack();
    stack.use(this.#loop);
    this.#type = typeByName(typeName);
    const socket = connectUnix(socketPath);
    this.#executable = executableOf(socket.peerCredentials().pid);
    this.#frontend = new VhostUserFrontend(socket, this.#loop, { type: this.#type, baseFeatures });
    stack.move();
  }

  async describe(): Promise<VmDescription> {
    const { name } = this.#type;
    return { name: this.socketPath, runState: "suspended", memoryBytes: 0, devices: [{ name, type: name }] };
  }

  async preflight(): Promise<readonly PreflightCheck[]> {
    const ok = this.#frontend.has("DEVICE_STATE");
    const detail = ok
      ? "the back-end has DEVICE_STATE"
      : "the back-end has no DEVICE_STATE: its state cannot be moved";
    return [{ name: "device state", ok, detail }];
  }

  async save(sink: VmSink, options: MoveOptions = {}): Promise<SnapshotManifest> {
    sink.writeMemoryMap([]);
    const stream = sink.writeDeviceState(DEVICE_ID);
    let head: Uint8Array | undefined;
    let done = 0;
    await this.#frontend.saveState(
      (bytes) => {
        head ??= bytes.slice(0, 64);
        stream.write(bytes);
        done += bytes.length;
        options.onProgress?.({ phase: "device state", done, total: done });
      },
      { signal: options.signal },
    );
    const { sizeBytes } = stream.finish();
    const device: SnapshotDevice = {
      id: DEVICE_ID,
      name: this.#type.name,
      type: this.#type.name,
      backend: {
        identity: "unknown",
        ...(this.#executable === undefined ? {} : { executable: this.#executable }),
      },
      socket: this.socketPath,
      features: `0x${this.#frontend.offeredFeatures.toString(16)}`,
      protocolFeatures: `0x${this.#frontend.protocolFeatures.toString(16)}`,
      queues: [],
      config: "",
      stateFormat: sniffState(head ?? new Uint8Array(0)).format,
      stateBytes: sizeBytes,
    };
    const manifest: SnapshotManifest = { devices: [device], memory: { totalBytes: 0 } };
    sink.writeManifest(manifest);
    return manifest;
  }

  /** It has no memory that could be copied while something runs. */
  startPrecopy(sink: VmSink, options: MoveOptions = {}): Promise<SnapshotManifest> {
    return this.save(sink, options);
  }

  async release(): Promise<void> {}

  async prepareLoad(source: VmSource, options: MoveOptions = {}): Promise<void> {
    const { devices } = source.manifest;
    const [device] = devices;
    if (device === undefined || devices.length !== 1) {
      throw new CompatibilityError(
        `the snapshot has ${devices.length} devices; a back-end takes the state of one`,
      );
    }
    await this.#frontend.loadState(source.deviceState(device.id), { signal: options.signal });
  }

  /** A back-end without a VM has nothing that runs. */
  async resume(): Promise<void> {}

  async reclaim(): Promise<void> {}

  async leavePrepared(): Promise<void> {}

  /** Nothing is kept: the connection ends with this object. */
  async discard(): Promise<void> {}

  [Symbol.dispose](): void {
    this.#frontend[Symbol.dispose]();
    this.#loop[Symbol.dispose]();
  }
}

function typeByName(name: string | undefined): DeviceType {
  if (name === undefined) return UNKNOWN_TYPE;
  const type = (deviceTypes as Readonly<Record<string, DeviceType>>)[name];
  if (type !== undefined) return type;
  throw new CompatibilityError(
    `"${name}" is not a device type; known are ${Object.keys(deviceTypes).join(", ")}`,
  );
}
