import { CompatibilityError, PeerError } from "../../src/errors.ts";
import { readStateStream, writeStateStream } from "../../src/frontend/mod.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import { PageSet } from "../../src/memory/mod.ts";
import { sniffState } from "../../src/state/mod.ts";
import { createPipe, disposeAll, type Fd } from "../../src/sys/mod.ts";
import type { MoveOptions, PreflightCheck, VmDescription, VmDriver, VmSink, VmSource } from "../driver.ts";
import { loadMemory, saveMemory } from "../ram/mod.ts";
import type { SnapshotDevice, SnapshotManifest } from "../snapshot/mod.ts";
import { ControlClient } from "./control-client.ts";
import {
  checkpointAnswer,
  type ExportedMachine,
  exportedMachine,
  type MachineStatus,
  machineOutline,
  machineStatus,
} from "./control-protocol.ts";
import { stateBytes, stateFd } from "./state-memfd.ts";

/** The one region of a native machine's memory. */
const REGION_ID = 0;

/** A native machine, through its control socket. */
export class MachineDriver implements VmDriver {
  readonly #client: ControlClient;
  #wasRunning = false;
  /** The machine's, when it was exported. */
  #runCount = 0;

  constructor(readonly socketPath: string) {
    this.#client = ControlClient.connect(socketPath);
  }

  /** Process of the machine. */
  get pid(): number {
    return this.#client.pid;
  }

  async status(): Promise<MachineStatus> {
    const { result } = await this.#client.request({ command: "status" });
    return machineStatus.parse(result);
  }

  async describe(): Promise<VmDescription> {
    const { name, runState, memoryBytes, devices, pid } = await this.status();
    const machine = runState === "incoming" ? undefined : await this.#config();
    const state = runState === "running" ? "running" : "suspended";
    return { name, runState: state, memoryBytes, devices, pid, machine };
  }

  async #config(): Promise<Record<string, unknown>> {
    const { result } = await this.#client.request({ command: "describe" });
    return machineOutline.parse(result).config;
  }

  async preflight(): Promise<readonly PreflightCheck[]> {
    const status = await this.status();
    const isLoaded = status.runState === "running" || status.runState === "suspended";
    return [
      {
        name: "machine",
        ok: isLoaded,
        detail: isLoaded ? `${status.name} is ${status.runState}` : "no machine is in it yet",
      },
      ...status.devices.map(({ name, lost, pid }) => ({
        name: `device ${name}`,
        ok: !lost,
        detail: lost ? "its back-end is gone; start the machine anew" : `back-end process ${pid}`,
      })),
    ];
  }

  async save(sink: VmSink, options: MoveOptions = {}): Promise<SnapshotManifest> {
    const { signal } = options;
    this.#wasRunning = (await this.status()).runState === "running";
    // The machine resumes by itself when this connection ends: whenever vhu dies, the source goes on.
    if (this.#wasRunning) await this.#client.request({ command: "suspend", hold: "connection" }, { signal });
    const { baseRoot } = sink;
    const request = { command: "export", ...(baseRoot === undefined ? {} : { base: baseRoot }) } as const;
    const { result, fds } = await this.#client.request(request, { signal });
    using stack = new DisposableStack();
    stack.defer(() => disposeAll(fds));
    const exported = exportedMachine.parse(result);
    this.#runCount = exported.runCount;
    const [memory, state, changedFd] = fds;
    if (memory === undefined || state === undefined) throw new PeerError("the machine gave no memory");
    sink.writeMemoryMap([{ id: REGION_ID, guestAddress: 0, sizeBytes: exported.memoryBytes, name: "ram" }]);
    const changed = changedFd && PageSet.of(exported.memoryBytes, stateBytes(changedFd));
    await saveMemory(sink, REGION_ID, memory, exported.memoryBytes, { ...options, changed });
    sink.writeMachineState(stateBytes(state));
    const devices: SnapshotDevice[] = [];
    for (const [id, device] of exported.devices.entries())
      devices.push(await this.#saveDevice(sink, id, device, options));
    const manifest: SnapshotManifest = {
      machine: exported.config,
      devices,
      memory: { totalBytes: exported.memoryBytes },
    };
    sink.writeManifest(manifest);
    return manifest;
  }

  async noteSaved(root: string): Promise<string | undefined> {
    const request = { command: "checkpoint", root, runCount: this.#runCount } as const;
    const { result } = await this.#client.request(request);
    return checkpointAnswer.parse(result).obstacle;
  }

  async prepareLoad(source: VmSource, options: MoveOptions = {}): Promise<void> {
    const { manifest } = source;
    const state = source.machineState();
    const [region] = source.memoryMap;
    if (manifest.machine === undefined || state === undefined || region === undefined) {
      throw new CompatibilityError(
        "the snapshot holds no native machine; load a single device's state into unix:PATH",
      );
    }
    using memory = await loadMemory(source, region, options);
    using machineState = stateFd(state);
    const config = { ...manifest.machine, socket: this.socketPath };
    await this.#client.request(
      { command: "build", config },
      { fds: [memory, machineState], signal: options.signal },
    );
    for (const { id, name, stateBytes } of manifest.devices) {
      options.onProgress?.({ phase: `device ${name}`, done: 0, total: stateBytes });
      await this.#loadDevice(source, id, name, options);
    }
  }

  async resume(): Promise<void> {
    const { runState } = await this.status();
    if (runState === "prepared") await this.#client.request({ command: "start" });
    else if (runState === "suspended" && this.#wasRunning) await this.#client.request({ command: "resume" });
  }

  async reclaim(): Promise<void> {
    await this.#client.request({ command: "resume" });
  }

  async leavePrepared(): Promise<void> {
    await this.#client.request({ command: "keep-prepared" });
  }

  async startPrecopy(): Promise<SnapshotManifest> {
    throw new CompatibilityError(
      "a native machine cannot be copied while it runs: save it while it stands still",
    );
  }

  async release(): Promise<void> {
    throw new CompatibilityError("a native machine cannot be given up for another host: stop it");
  }

  async discard(): Promise<void> {
    await this.#client.request({ command: "stop" });
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  async #saveDevice(
    sink: VmSink,
    id: number,
    device: ExportedMachine["devices"][number],
    options: MoveOptions,
  ): Promise<SnapshotDevice> {
    const { name, canMoveState, ...known } = device;
    if (!canMoveState) {
      throw new CompatibilityError(`the back-end of ${name} has no DEVICE_STATE: its state cannot be saved`);
    }
    const stream = sink.writeDeviceState(id);
    let head: Uint8Array | undefined;
    await this.#transfer(name, "save", options, (fd) =>
      readStateStream(
        fd,
        (bytes) => {
          head ??= bytes.slice(0, 64);
          stream.write(bytes);
        },
        { signal: options.signal },
      ),
    );
    const { sizeBytes } = stream.finish();
    return {
      ...known,
      id,
      name,
      stateFormat: sniffState(head ?? new Uint8Array(0)).format,
      stateBytes: sizeBytes,
    };
  }

  async #loadDevice(source: VmSource, id: number, name: string, options: MoveOptions): Promise<void> {
    await this.#transfer(name, "load", options, (fd) =>
      writeStateStream(fd, source.deviceState(id), { signal: options.signal }),
    );
  }

  /** A pipe whose far end goes straight to the back-end: its bytes do not pass through the machine's process. */
  async #transfer(
    device: string,
    direction: "save" | "load",
    options: MoveOptions,
    move: (fd: Fd) => Promise<unknown>,
  ): Promise<void> {
    const { readEnd, writeEnd } = createPipe();
    const [ours, theirs] = direction === "save" ? [readEnd, writeEnd] : [writeEnd, readEnd];
    using stack = new DisposableStack();
    stack.use(theirs);
    stack.use(ours);
    const { fds } = await this.#client.request(
      { command: "state-begin", device, direction },
      { fds: [theirs], signal: options.signal },
    );
    stack.defer(() => disposeAll(fds));
    theirs[Symbol.dispose]();
    await move(fds.shift() ?? ours);
    await this.#client.request(
      { command: "state-check", device },
      { signal: options.signal, timeoutMs: DEFAULT_TRANSFER_IDLE_TIMEOUT_MS },
    );
  }
}
