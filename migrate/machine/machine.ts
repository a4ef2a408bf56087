import { FormatError, StateError } from "../../src/errors.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import { Deadline, type EventLoop, type Fd } from "../../src/sys/mod.ts";
import type { MachineConfig, WorkloadConfig } from "../machine-file/mod.ts";
import { BlocksWorkload } from "./blocks-workload.ts";
import type { DevicePrograms } from "./device-process.ts";
import { DirtyTracking } from "./dirty-tracking.ts";
import { FilesWorkload } from "./files-workload.ts";
import { FramesWorkload } from "./frames-workload.ts";
import { LinesWorkload } from "./lines-workload.ts";
import { MachineDevice } from "./machine-device.ts";
import { MachineMemory } from "./machine-memory.ts";
import type { MachineState } from "./machine-state.ts";
import { RandomWorkload } from "./random-workload.ts";
import { Throttle } from "./throttle.ts";
import type { WaitingBackends } from "./waiting-backends.ts";
import type { VerifyReport, Workload } from "./workload.ts";

export interface MachineOptions {
  readonly programs: DevicePrograms;
  /** An incoming machine's process ends when its loader is gone before the machine is there. */
  readonly endsWithLoader?: boolean | undefined;
  readonly logger?: Logger | undefined;
}

/** What a machine continues from. The memfd becomes the machine's. */
export interface RestoredMachine {
  readonly memory: Fd;
  readonly state: MachineState;
  /** Those of its back-ends that were started before. */
  readonly backends?: WaitingBackends | undefined;
}

export type RunState = "prepared" | "running" | "suspended";

/** How long the workloads may take to have nothing in flight for a verification. */
const IDLE_TIMEOUT_MS = 30_000;
const MIB = 2 ** 20;

/**
 * A native machine: memory, vhost-user devices, and workloads that stand in for a guest. It runs on one thread; everything
 * it does is driven by `loop`.
 */
export class Machine implements Disposable {
  readonly memory: MachineMemory;
  readonly devices: readonly MachineDevice[];
  readonly workloads: readonly Workload[];
  /** Which pages of its memory change. */
  readonly dirty: DirtyTracking;
  readonly #logger: Logger;
  #runState: RunState = "prepared";
  #isChanging = false;
  #isReleased = false;
  readonly #throttle: Throttle;
  /** How often it has begun to run: what was true before is not any more. */
  runCount = 0;

  /** Opens all devices. Nothing runs before `start`; a restored machine's devices take their states before it. */
  constructor(
    readonly config: MachineConfig,
    readonly loop: EventLoop,
    options: MachineOptions,
    restored?: RestoredMachine,
  ) {
    this.#logger = options.logger ?? silentLogger;
    using stack = new DisposableStack();
    this.memory = stack.use(new MachineMemory(config.memory["size-mib"] * MIB, restored?.memory));
    this.devices = config.device.map((deviceConfig) => {
      const state = restored?.state.devices.find(({ name }) => name === deviceConfig.name);
      if (restored !== undefined && state === undefined) {
        throw new FormatError(`the state has no device "${deviceConfig.name}"`, "machine state");
      }
      const onLost = (device: MachineDevice) =>
        this.#logger.error(`the back-end of ${device.config.name} is gone`);
      return stack.use(
        new MachineDevice(
          ...([deviceConfig, this.memory, loop, options.programs, onLost, state] as const),
          restored?.backends?.take(deviceConfig),
        ),
      );
    });
    this.dirty = new DirtyTracking(this);
    this.workloads = config.workload.map((each, i) =>
      stack.use(this.#workload(each, restored?.state.workloads[i])),
    );
    const mayTouch = () => this.#runState === "running" && !this.#isChanging;
    this.#throttle = stack.use(new Throttle(loop, this.workloads, mayTouch));
    for (const device of this.devices) device.onInterrupt = () => this.#onInterrupt(device);
    stack.move();
  }

  get runState(): RunState {
    return this.#runState;
  }

  device(name: string): MachineDevice {
    const device = this.devices.find(({ config }) => config.name === name);
    if (device === undefined) throw new StateError(`the machine has no device "${name}"`);
    return device;
  }

  /** Starts the devices' queues and the workloads. */
  start(): void {
    if (this.#runState !== "prepared") throw new StateError("the machine was started already");
    this.#exclusively(() => {
      this.runCount += 1;
      for (const device of this.devices) device.start();
      this.#runState = "running";
    });
    this.#goOn();
  }

  /** Stops the workloads, then every queue of every device. What was in flight is completed by the back-ends first. */
  suspend(): void {
    if (this.#runState !== "running") throw new StateError(`the machine is ${this.#runState}, not running`);
    this.#exclusively(() => {
      for (const workload of this.workloads) workload.pause();
      for (const device of this.devices) device.sleep();
      this.#runState = "suspended";
    });
  }

  /** @throws StateError when it was given up */
  resume(): void {
    if (this.#isReleased)
      throw new StateError(
        "the machine was given up for another host; where that does not have it, vhu migrate recover takes it back",
      );
    if (this.#runState !== "suspended")
      throw new StateError(`the machine is ${this.#runState}, not suspended`);
    this.#exclusively(() => {
      this.runCount += 1;
      for (const device of this.devices) device.wake();
      this.#runState = "running";
    });
    this.#goOn();
  }

  /** The suspended machine runs elsewhere from now on: here it can only be stopped, or taken back. */
  release(): void {
    if (this.#runState !== "suspended") throw new StateError("the machine runs; suspend it first");
    this.#isReleased = true;
  }

  /** Lets it run, whatever was: recovery knows that nobody else has it. */
  reclaim(): void {
    this.#isReleased = false;
    if (this.#runState === "prepared") this.start();
    else if (this.#runState === "suspended") this.resume();
  }

  get isReleased(): boolean {
    return this.#isReleased;
  }

  /** @param percent How much of the time its workloads submit nothing. */
  throttle(percent: number): void {
    this.#throttle.set(percent);
  }

  /** All that is not in memory and not a device's. The machine is suspended. */
  exportState(): MachineState {
    return {
      devices: this.devices.map((device) => ({
        name: device.config.name,
        features: device.features,
        queues: device.queues.map((queue) => {
          const { base, ring } = queue.exportState();
          const outstanding = ring.outstanding.map((chain) => ({
            ...chain,
            descriptors: [...chain.descriptors],
          }));
          return { base, ring: { ...ring, free: [...ring.free], outstanding } };
        }),
      })),
      workloads: this.workloads.map((workload) => workload.exportState()),
    };
  }

  /** Lets the workloads finish what is in flight, checks everything they did, and goes on. */
  verify(): VerifyReport {
    if (this.#runState !== "running") throw new StateError(`the machine is ${this.#runState}, not running`);
    return this.#exclusively(() => this.#verifyAll());
  }

  [Symbol.dispose](): void {
    this.#throttle[Symbol.dispose]();
    for (const workload of this.workloads) workload[Symbol.dispose]();
    this.dirty[Symbol.dispose]();
    for (const device of this.devices) device[Symbol.dispose]();
    this.memory[Symbol.dispose]();
  }

  /**
   * Runs a change of state. A back-end that is waited for turns the loop, and with it the control socket: what comes from
   * there meanwhile must not begin another change.
   */
  #exclusively<T>(change: () => T): T {
    if (this.#isChanging) throw new StateError("the machine is busy with an earlier command; try again");
    this.#isChanging = true;
    try {
      return change();
    } finally {
      this.#isChanging = false;
    }
  }

  #verifyAll(): VerifyReport {
    const turn = () => void this.loop.runOnce(20);
    for (const workload of this.workloads) workload.pause();
    const deadline = new Deadline(IDLE_TIMEOUT_MS);
    while (!this.workloads.every((workload) => workload.isIdle)) {
      if (deadline.expired) throw new StateError("the workloads did not come to rest; is a back-end gone?");
      turn();
    }
    try {
      const reports = this.workloads.map((workload) => workload.verify(turn));
      return reports.reduce(
        (sum, report) => ({
          checked: sum.checked + report.checked,
          lost: sum.lost + report.lost,
          torn: sum.torn + report.torn,
          repeated: sum.repeated + report.repeated,
          failures: [...sum.failures, ...report.failures],
        }),
        { checked: 0, lost: 0, torn: 0, repeated: 0, failures: [] },
      );
    } finally {
      for (const workload of this.workloads) workload.run();
    }
  }

  #goOn(): void {
    for (const workload of this.workloads) workload.run();
    // Completions of before a suspension may wait in the used rings: nobody interrupts for them again.
    for (const workload of this.workloads) workload.onInterrupt();
  }

  /** While it stands still, memory may be read by others: completions wait until it goes on. */
  #onInterrupt(device: MachineDevice): void {
    if (this.#runState !== "running") return;
    for (const workload of this.workloads) if (workload.devices.includes(device)) workload.onInterrupt();
  }

  #workload(config: WorkloadConfig, restored: unknown): Workload {
    const { memory, loop } = this;
    switch (config.kind) {
      case "blocks": {
        const log = config.log === undefined ? undefined : this.device(config.log);
        return new BlocksWorkload(config, this.device(config.disk), log, memory, loop, restored);
      }
      case "files":
        return new FilesWorkload(config, this.device(config.share), memory, loop, restored);
      case "lines":
        return new LinesWorkload(config, this.device(config.console), memory, loop, restored);
      case "random":
        return new RandomWorkload(config, this.device(config.source), memory, loop, restored);
      case "frames":
        return new FramesWorkload(config, this.device(config.interface), memory, loop, restored);
    }
  }
}
