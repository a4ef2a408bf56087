import { StateError } from "../../src/errors.ts";
import type { PageSet } from "../../src/memory/mod.ts";
import type { EventLoop, Fd } from "../../src/sys/mod.ts";
import { type MachineConfig, parseMachineConfig } from "../machine-file/mod.ts";
import { Checkpoint } from "./checkpoint.ts";
import type { ExportedMachine, MachineStatus } from "./control-protocol.ts";
import { Machine, type MachineOptions, type RunState } from "./machine.ts";
import type { MachineDevice } from "./machine-device.ts";
import { decodeMachineState, encodeMachineState } from "./machine-state.ts";
import { WaitingBackends } from "./waiting-backends.ts";

/** The process around a machine: it has one, or waits for one to be built in it. */
export class MachineHost implements Disposable {
  #machine: Machine | undefined;
  #checkpoint: Checkpoint | undefined;
  #backends: WaitingBackends | undefined;

  constructor(
    readonly loop: EventLoop,
    readonly options: MachineOptions,
    config?: MachineConfig,
  ) {
    if (config !== undefined) this.#machine = new Machine(config, loop, options);
  }

  /** @throws StateError while the process waits for an incoming machine */
  get machine(): Machine {
    if (this.#machine === undefined)
      throw new StateError("this process waits for a machine to be loaded into it");
    return this.#machine;
  }

  get runState(): RunState | "incoming" {
    return this.#machine?.runState ?? "incoming";
  }

  /** Starts the back-ends of the machine that will be built. @throws FormatError, StateError */
  expect(config: unknown): void {
    if (this.#machine !== undefined) throw new StateError("this process has a machine already");
    this.#backends?.[Symbol.dispose]();
    const parsed = parseMachineConfig(config, "machine description");
    this.#backends = new WaitingBackends(parsed, this.options.programs);
  }

  /** Builds the machine that was saved. Takes the memfd. @throws FormatError, StateError */
  build(config: unknown, memory: Fd, state: Uint8Array): void {
    using stack = new DisposableStack();
    stack.use(memory);
    if (this.#machine !== undefined) throw new StateError("this process has a machine already");
    const backends = this.#backends;
    const restored = { memory, state: decodeMachineState(state), backends };
    const parsed = parseMachineConfig(config, "machine description");
    stack.move();
    this.#machine = new Machine(parsed, this.loop, this.options, restored);
  }

  status(): MachineStatus {
    const machine = this.#machine;
    return {
      name: machine?.config.name ?? "(incoming)",
      pid: process.pid,
      runState: this.runState,
      memoryBytes: machine?.memory.sizeBytes ?? 0,
      devices: (machine?.devices ?? []).map((device) => ({
        name: device.config.name,
        type: device.config.type,
        pid: device.backend.pid,
        spawned: device.backend.process !== undefined,
        lost: device.isLost,
      })),
      workloads: (machine?.workloads ?? []).map((workload) => ({
        kind: workload.kind,
        counters: workload.counters(),
      })),
    };
  }

  /** All about a suspended machine that is not in its memory or its devices. */
  export(): { description: ExportedMachine; machineState: Uint8Array } {
    const { machine } = this;
    if (machine.runState !== "suspended") throw new StateError("the machine runs; suspend it first");
    const machineState = encodeMachineState(machine.exportState());
    const description: ExportedMachine = {
      config: machine.config,
      memoryBytes: machine.memory.sizeBytes,
      runCount: machine.runCount,
      devices: machine.devices.map(describeDevice),
    };
    return { description, machineState };
  }

  /** As `Checkpoint.set`; returns why it cannot, where a back-end has no dirty log. */
  setCheckpoint(root: string, runCount: number): string | undefined {
    const { obstacle } = this.machine.dirty;
    if (obstacle !== undefined) return obstacle;
    this.#checkpoint ??= new Checkpoint(this.machine);
    this.#checkpoint.set(root, runCount);
    return undefined;
  }

  /** As `Checkpoint.changedSince`. */
  changedSince(root: string): PageSet | undefined {
    return this.#checkpoint?.changedSince(root);
  }

  stop(): void {
    this.loop.stop();
  }

  [Symbol.dispose](): void {
    this.#checkpoint?.[Symbol.dispose]();
    this.#machine?.[Symbol.dispose]();
    this.#backends?.[Symbol.dispose]();
  }
}

function describeDevice(device: MachineDevice): ExportedMachine["devices"][number] {
  const { config, frontend } = device;
  return {
    name: config.name,
    type: config.type,
    ...(config.socket === undefined ? {} : { socket: config.socket }),
    backend: device.identity,
    features: `0x${frontend.ackedFeatures.toString(16)}`,
    protocolFeatures: `0x${frontend.protocolFeatures.toString(16)}`,
    queues: device.queues.map(({ setup: { index, size, base } }) => ({ index, size, base })),
    config: Buffer.from(device.readConfig()).toString("hex"),
    canMoveState: frontend.has("DEVICE_STATE"),
  };
}
