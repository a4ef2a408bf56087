import { CompatibilityError, PeerError, VhuError } from "../../src/errors.ts";
import { PageSet } from "../../src/memory/mod.ts";
import { disposeAll, type Fd, Mapping, UnixSocket } from "../../src/sys/mod.ts";
import { type CopiedImage, DeviceControlClient, DiskRounds } from "../control/mod.ts";
import type {
  MachineDisk,
  MachineOutline,
  MoveOptions,
  PrecopyOptions,
  PreflightCheck,
  VmDescription,
  VmDriver,
  VmSink,
  VmSource,
} from "../driver.ts";
import { parseMachineConfig } from "../machine-file/mod.ts";
import { loadMemory, saveMemory } from "../ram/mod.ts";
import { MEMORY_PAGE_BYTES, type SnapshotManifest } from "../snapshot/mod.ts";
import { ControlClient } from "./control-client.ts";
import {
  checkpointAnswer,
  exportedMachine,
  type MachineStatus,
  machineOutline,
  machineStatus,
  precopyBegun,
} from "./control-protocol.ts";
import { nativeDisks } from "./native-disks.ts";
import { joined, Precopy, type PrecopySource } from "./precopy.ts";
import { stateBytes, stateFd } from "./state-memfd.ts";
import { loadDeviceStates, saveDeviceStates } from "./transfer-states.ts";

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

  async disks(): Promise<readonly MachineDisk[]> {
    return nativeDisks(parseMachineConfig(await this.#config(), "machine"));
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
    const request = { command: "export", ...baseOf(sink) } as const;
    const { result, fds } = await this.#client.request(request, { signal });
    using stack = new DisposableStack();
    stack.defer(() => disposeAll(fds));
    const exported = exportedMachine.parse(result);
    this.#runCount = exported.runCount;
    const [memory, state, changedFd] = [required(fds[0]), required(fds[1]), fds[2]];
    sink.writeMemoryMap([{ id: REGION_ID, guestAddress: 0, sizeBytes: exported.memoryBytes, name: "ram" }]);
    const changed = changedPages(changedFd, exported.memoryBytes, options);
    await saveMemory(sink, REGION_ID, memory, exported.memoryBytes, { ...options, changed });
    sink.writeMachineState(stateBytes(state));
    const devices = await saveDeviceStates(this.#client, sink, exported.devices, options);
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

  /**
   * What can be done before the machine's state is known: its back-ends' processes are started.
   * @throws FormatError for a description of no native machine
   */
  async prepareIncoming({ machine }: Pick<MachineOutline, "machine">): Promise<void> {
    await this.#client.request({ command: "expect", config: { ...machine, socket: this.socketPath } });
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
    await loadDeviceStates(this.#client, source, options);
  }

  async resume(): Promise<void> {
    const { runState } = await this.status();
    if (runState === "prepared") await this.#client.request({ command: "start" });
    else if (runState === "suspended" && this.#wasRunning) await this.#client.request({ command: "resume" });
  }

  async reclaim(): Promise<void> {
    await this.#client.request({ command: "reclaim" });
  }

  async leavePrepared(): Promise<void> {
    await this.#client.request({ command: "keep-prepared" });
  }

  async startPrecopy(sink: VmSink, options: PrecopyOptions = {}): Promise<SnapshotManifest> {
    if (options.throttle === "dirty-limit") {
      throw new CompatibilityError(
        "dirty-limit is for QEMU with KVM: a native machine is slowed down as a whole",
      );
    }
    this.#wasRunning = (await this.status()).runState === "running";
    using stack = new DisposableStack();
    const disks = stack.use(await this.#diskRounds(options));
    await disks?.first();
    if (!this.#wasRunning) return await this.save(sink, options);
    const { result, fds } = await this.#client.request(
      { command: "precopy-begin", ...baseOf(sink) },
      { signal: options.signal },
    );
    stack.defer(() => disposeAll(fds));
    const { memoryBytes } = precopyBegun.parse(result);
    const [memory, changedFd] = [required(fds[0]), fds[1]];
    const changed = changedPages(changedFd, memoryBytes, options);
    const mapping = stack.use(Mapping.ofFd(memory, { sizeBytes: memoryBytes, readOnly: true }));
    try {
      sink.writeMemoryMap([{ id: REGION_ID, guestAddress: 0, sizeBytes: memoryBytes, name: "ram" }]);
      const passes = new Precopy(this.#precopySource(options), sink, REGION_ID, mapping, options, disks);
      const left = await passes.run(() =>
        saveMemory(sink, REGION_ID, memory, memoryBytes, { ...options, changed, isRunning: true }),
      );
      return await this.#finishPrecopy(sink, passes, left, options, disks);
    } finally {
      await this.#endPrecopy();
    }
  }

  async release(): Promise<void> {
    await this.#client.request({ command: "release" });
    this.#wasRunning = false;
  }

  async discard(): Promise<void> {
    await this.#client.request({ command: "stop" });
  }

  [Symbol.dispose](): void {
    this.#client[Symbol.dispose]();
  }

  /** The machine stands still: what is left of its memory, and all the rest. */
  async #finishPrecopy(
    sink: VmSink,
    passes: Precopy,
    left: PageSet,
    options: PrecopyOptions,
    disks: DiskRounds | undefined,
  ): Promise<SnapshotManifest> {
    const { signal } = options;
    options.onStopped?.(Date.now());
    await this.#client.request({ command: "suspend", hold: "connection" }, { signal });
    const changed = await this.#precopySource(options).takeDirty();
    const { result, fds } = await this.#client.request({ command: "export" }, { signal });
    using stack = new DisposableStack();
    stack.defer(() => disposeAll(fds));
    const exported = exportedMachine.parse(result);
    this.#runCount = exported.runCount;
    sink.writeMachineState(stateBytes(required(fds[1])));
    const [devices] = await all([
      saveDeviceStates(this.#client, sink, exported.devices, options),
      passes.last(joined(left, changed)),
      disks?.last(),
    ]);
    if (options.goesOn) await this.#client.request({ command: "resume" });
    const { config, memoryBytes } = exported;
    const manifest = { machine: config, devices, memory: { totalBytes: memoryBytes } };
    sink.writeManifest(manifest);
    return manifest;
  }

  /** Of the disks that are to be copied; undefined where there are none. @throws CompatibilityError, StateError */
  async #diskRounds(options: PrecopyOptions): Promise<DiskRounds | undefined> {
    const { copyDisks, signal } = options;
    if (copyDisks === undefined) return undefined;
    const disks = await this.disks();
    using stack = new DisposableStack();
    const copied: CopiedImage[] = [];
    for (const [index, path] of copyDisks.paths.entries()) {
      const disk = disks.find((each) => each.path === path);
      if (disk === undefined) throw new CompatibilityError(`the machine has no disk ${path}`);
      const request = { command: "device-control", device: disk.name } as const;
      const { fds } = await this.#client.request(request, { signal });
      const client = stack.use(DeviceControlClient.over(new UnixSocket(required(fds[0])), signal));
      copied.push({ disk: index, client });
    }
    const rounds = await DiskRounds.begin(copied, copyDisks.sink, options);
    stack.move();
    return rounds;
  }

  #precopySource({ signal }: PrecopyOptions): PrecopySource {
    const client = this.#client;
    return {
      async takeDirty() {
        const { fds } = await client.request({ command: "precopy-take" }, { signal });
        using stack = new DisposableStack();
        stack.defer(() => disposeAll(fds));
        const bytes = stateBytes(required(fds[0]));
        return PageSet.of(bytes.length * 8 * MEMORY_PAGE_BYTES, bytes);
      },
      async throttle(percent) {
        await client.request({ command: "throttle", percent }, { signal });
      },
    };
  }

  /** What ends the copy is the error to tell; the machine ends this by itself when the connection is gone. */
  async #endPrecopy(): Promise<void> {
    try {
      await this.#client.request({ command: "precopy-end" });
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
    }
  }
}

function baseOf({ baseRoot }: VmSink): { readonly base?: string } {
  return baseRoot === undefined ? {} : { base: baseRoot };
}

/** What a machine's dirty log says may differ from the base; undefined where it has none. */
function changedPages(
  fd: Fd | undefined,
  memoryBytes: number,
  { onChangedPages }: MoveOptions,
): PageSet | undefined {
  if (fd === undefined) return undefined;
  const changed = PageSet.of(memoryBytes, stateBytes(fd));
  onChangedPages?.(changed.size);
  return changed;
}

function required(fd: Fd | undefined): Fd {
  if (fd === undefined) throw new PeerError("the machine gave no memory");
  return fd;
}

/** All to their ends, whatever becomes of one: what they read from must not go away before. */
async function all<T extends readonly unknown[]>(promises: T) {
  await Promise.allSettled(promises);
  return await Promise.all(promises);
}
