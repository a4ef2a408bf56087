import { CompatibilityError, PeerError } from "../../src/errors.ts";
import { baseFeatures, deviceTypes, Interrupt, VhostUserFrontend } from "../../src/frontend/mod.ts";
import { DEFAULT_DRAIN_TIMEOUT_MS } from "../../src/limits.ts";
import { Deadline, type EventLoop, executableOf, POLL, UnixSocket } from "../../src/sys/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import type { DeviceConfig } from "../machine-file/mod.ts";
import { type DeviceBackend, type DevicePrograms, openBackend } from "./device-process.ts";
import { traitsOf } from "./device-traits.ts";
import type { MachineMemory } from "./machine-memory.ts";
import { MachineQueue, type QueueState } from "./machine-queue.ts";

/** What a restored device goes on from. */
export interface DeviceRestoreState {
  readonly features: bigint;
  readonly queues: readonly QueueState[];
}

const BACKEND_TIMEOUT_MS = 30_000;

/** One device of a native machine: its back-end, its queues, and the interrupts that tell the workload. */
export class MachineDevice implements Disposable {
  readonly interrupt = new Interrupt();
  readonly frontend: VhostUserFrontend;
  readonly backend: DeviceBackend;
  readonly queues: readonly MachineQueue[];
  /** Who serves it, for the snapshot's manifest; vhost-user itself does not tell. */
  readonly identity: { readonly identity: string; readonly version?: string; readonly executable?: string };
  isLost = false;
  /** Called when a queue's interrupt came. */
  onInterrupt: () => void = () => {};

  constructor(
    readonly config: DeviceConfig,
    readonly memory: MachineMemory,
    readonly loop: EventLoop,
    programs: DevicePrograms,
    onLost: (device: MachineDevice) => void,
    restored?: DeviceRestoreState,
    waiting?: DeviceBackend,
  ) {
    const traits = traitsOf(config);
    this.backend = waiting ?? openBackend(config, programs);
    const executable = executableOf(this.backend.pid);
    this.identity = {
      ...(this.backend.process === undefined
        ? { identity: "unknown" }
        : { identity: `vhu device run ${config.type}`, version: programs.version }),
      ...(executable === undefined ? {} : { executable }),
    };
    this.frontend = this.#connect(onLost);
    this.features = restored?.features ?? this.frontend.features & (traits.features | baseFeatures);
    const eventIdx = (this.features & virtioFeature.RING_EVENT_IDX) !== 0n;
    this.queues = Array.from(
      { length: traits.queues },
      (_, index) =>
        new MachineQueue(index, config["queue-size"], memory, { eventIdx }, restored?.queues[index]),
    );
    for (const { index } of this.queues)
      loop.watch(this.interrupt.callFor(index), POLL.IN, () => this.#onCall(index));
  }

  /** What the driver acknowledged; bit 30 is the front-end's own. */
  readonly features: bigint;

  /** Starts the queues where they stand. */
  start(): void {
    this.frontend.ackFeatures(this.features);
    this.frontend.activate(
      this.memory.regions,
      this.interrupt,
      this.queues.map((queue) => queue.setup),
    );
  }

  /** As far as the type's drivers read it. */
  readConfig(): Uint8Array {
    const { configBytes } = traitsOf(this.config);
    return configBytes === 0 ? new Uint8Array(0) : this.frontend.readConfig(0, configBytes);
  }

  /** Stops the queues; the back-end is suspended then, and every queue knows its base. */
  sleep(): void {
    const bases = this.frontend.sleep();
    for (const queue of this.queues) queue.base = bases.get(queue.index) ?? queue.base;
    // qemu-storage-daemon 10.0.2 answers GET_VRING_BASE before it has written its last completions (seen): memory must not
    // be saved before they are in it.
    const deadline = new Deadline(DEFAULT_DRAIN_TIMEOUT_MS);
    while (!this.queues.every(({ isSettled }) => isSettled)) {
      if (deadline.expired)
        throw new PeerError(`the back-end of ${this.config.name} took requests and does not finish them`);
      this.loop.runOnce(1);
    }
  }

  wake(): void {
    this.frontend.wake(
      this.memory.regions,
      this.interrupt,
      this.queues.map((queue) => queue.setup),
    );
  }

  [Symbol.dispose](): void {
    for (const { index } of this.queues) this.loop.unwatch(this.interrupt.callFor(index));
    this.frontend[Symbol.dispose]();
    for (const queue of this.queues) queue[Symbol.dispose]();
    this.interrupt[Symbol.dispose]();
    this.backend.control?.[Symbol.dispose]();
    this.backend.process?.kill("SIGTERM");
  }

  /**
   * A new control connection to the back-end of a disk that the machine started; the caller's.
   * @throws CompatibilityError for any other
   */
  openControl(): UnixSocket {
    const { control } = this.backend;
    if (control === undefined) {
      const { name, type } = this.config;
      throw new CompatibilityError(
        `${name} (${type}) is no disk that this machine has started the back-end of`,
      );
    }
    const [ours, theirs] = UnixSocket.pair();
    using _theirs = theirs;
    using stack = new DisposableStack();
    stack.use(ours);
    control.send({ command: "attach" }, [theirs.fd]);
    stack.move();
    return ours;
  }

  /** The first answer comes when the back-end's process is up, which on a busy host takes seconds. */
  #connect(onLost: (device: MachineDevice) => void): VhostUserFrontend {
    const { config, backend } = this;
    try {
      return new VhostUserFrontend(backend.socket, this.loop, {
        type: deviceTypes[config.type],
        baseFeatures: baseFeatures & ~virtioFeature.RING_INDIRECT_DESC,
        ...(config.type === "fs" ? { localConfig: fsConfig(config.tag) } : {}),
        channel: { requestTimeoutMs: BACKEND_TIMEOUT_MS },
        onDisconnect: () => {
          this.isLost = true;
          onLost(this);
        },
      });
    } catch (cause) {
      if (!(cause instanceof PeerError)) throw cause;
      // What it had to say is in the log already.
      throw new PeerError(
        `the back-end of ${config.name} (${config.type}) does not serve: ${cause.message}`,
        {
          cause: cause.cause,
        },
      );
    }
  }

  #onCall(index: number): void {
    this.interrupt.take(index);
    this.onInterrupt();
  }
}

/** struct virtio_fs_config: 36 bytes of tag, u32 number of request queues. */
function fsConfig(tag: string): Uint8Array {
  const config = new Uint8Array(40);
  config.set(new TextEncoder().encode(tag).subarray(0, 36));
  new DataView(config.buffer).setUint32(36, 1, true);
  return config;
}
