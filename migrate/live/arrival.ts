import { accessSync, constants, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { StateError, SyscallError } from "../../src/errors.ts";
import { StartedBackends } from "../backends/mod.ts";
import type { VmDriver } from "../driver.ts";
import { MachineProcess } from "../machine/mod.ts";
import { requireOwn } from "../policy/mod.ts";
import { type QemuDriver, type QemuLaunch, startQemu } from "../qemu/mod.ts";
import type { GuestMemory } from "../ram/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";
import { type ArrivalPolicy, arrivalPlan } from "./arrival-policy.ts";
import type { Offer } from "./messages.ts";

/** A machine's process on its way to being one: it waits, and ends with this object until `release`. */
export interface Arrival extends Disposable {
  readonly driver: VmDriver;
  /** Where it will be found, e.g. "machine:/run/web.sock". */
  readonly address: string;
  readonly pid: number;
  readonly logPath: string;
  /** Those that were started for it, in words. */
  readonly backends: readonly { readonly what: string; readonly pid: number }[];
  release(): void;
  /** The same error, with what the process wrote before it ended. */
  explain(error: unknown): unknown;
}

export interface ArrivalOptions {
  readonly policy: ArrivalPolicy;
  readonly signal: AbortSignal;
  /** What is started in here, before it waits for anything, is marked as the operation's. */
  readonly marked: <T>(start: () => T) => T;
}

/** Starts what an offer describes, over its memory: of the offer only what the policy allows has got here. */
export async function startArrival(
  offer: Offer,
  memoryMap: readonly SnapshotRegion[],
  memory: GuestMemory,
  options: ArrivalOptions,
): Promise<Arrival> {
  const { policy, signal, marked } = options;
  makeSocketFolder(policy.socketFolder);
  if (offer.type === "qemu") return startQemuArrival(offer, memoryMap, memory, options);
  const socket = socketPathOf(offer, policy);
  const args = ["--incoming", "--end-with-loader", "--socket", socket];
  const process = marked(() => MachineProcess.start(policy.vhu, args, socket));
  const driver = await orEnd(process, async () => {
    const connected = await process.connect(signal);
    // Before the last of the state is here: while it stands still, no process is started.
    await connected.prepareIncoming(offer);
    return connected;
  });
  return {
    ...{ driver, address: `machine:${socket}`, pid: process.pid, logPath: process.logPath, backends: [] },
    release: () => process.release(),
    explain: (error) => error,
    [Symbol.dispose]: () => disposeBoth(driver, process),
  };
}

/** @throws StateError for a folder that others can write; SyscallError: the receiver serves others, and goes on */
export function makeSocketFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.W_OK | constants.X_OK);
    // Elsewhere another user could have left links where logs are written, and take the sockets.
    requireOwn(folder, statSync(folder), "give --sockets a folder of your own");
  } catch (error) {
    if (error instanceof StateError) throw error;
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    throw new SyscallError("mkdir", code, `${folder}: give --sockets a folder that can be written`);
  }
}

/** Its back-ends, then QEMU. */
async function startQemuArrival(
  { machine, name }: Offer,
  memoryMap: readonly SnapshotRegion[],
  memory: GuestMemory,
  { policy, signal, marked }: ArrivalOptions,
): Promise<Arrival> {
  const plan = arrivalPlan(machine, policy, socketPathOf({ name }, policy));
  const backends = await marked(() => StartedBackends.start(plan.backends, { signal }));
  const endBackends = () => void backends[Symbol.asyncDispose]().catch(() => {});
  try {
    const launch = marked(() => startQemu({ memoryMap }, memory, plan.qemu, backends.lifeLines));
    const driver = await orEnd(launch, () => connectQemu(launch, machine, signal));
    return {
      ...{ driver, address: `qmp:${plan.qemu.socketPath}`, pid: launch.pid, logPath: launch.logPath },
      backends: backends.list.map(({ chardev, type, pid }) => ({
        what: `the ${type} back-end of ${chardev}`,
        pid,
      })),
      release: () => {
        launch.release();
        backends.release();
      },
      explain: (error) => launch.explain(error),
      [Symbol.dispose]: () => {
        disposeBoth(driver, launch);
        endBackends();
      },
    };
  } catch (error) {
    endBackends();
    throw error;
  }
}

async function connectQemu(
  launch: QemuLaunch,
  machine: Offer["machine"],
  signal: AbortSignal,
): Promise<QemuDriver> {
  // Both hosts see the same disks, which the source has until it gives them up: they may change meanwhile.
  const connected = await launch.connect({ signal, force: true });
  try {
    await connected.prepareIncoming({ machine });
    return connected;
  } catch (error) {
    connected[Symbol.dispose]();
    throw launch.explain(error);
  }
}

/** Where the machine of an offer will be found. */
export function addressOf(offer: Pick<Offer, "name" | "type">, policy: ArrivalPolicy): string {
  return `${offer.type === "qemu" ? "qmp" : "machine"}:${socketPathOf(offer, policy)}`;
}

function socketPathOf({ name }: Pick<Offer, "name">, { socketFolder }: ArrivalPolicy): string {
  return join(socketFolder, `${name}.sock`);
}

async function orEnd<T>(process: Disposable, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    process[Symbol.dispose]();
    throw error;
  }
}

function disposeBoth(driver: Disposable, process: Disposable): void {
  driver[Symbol.dispose]();
  process[Symbol.dispose]();
}
