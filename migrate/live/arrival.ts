import { accessSync, constants, mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { StateError, SyscallError } from "../../src/errors.ts";
import type { VmDriver } from "../driver.ts";
import { MachineProcess } from "../machine/mod.ts";
import { requireOwn } from "../policy/mod.ts";
import { startQemu } from "../qemu/mod.ts";
import type { GuestMemory } from "../ram/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";
import { type ArrivalPolicy, arrivalCommand } from "./arrival-policy.ts";
import type { Offer } from "./messages.ts";

/** A machine's process on its way to being one: it waits, and ends with this object until `release`. */
export interface Arrival extends Disposable {
  readonly driver: VmDriver;
  /** Where it will be found, e.g. "machine:/run/web.sock". */
  readonly address: string;
  readonly pid: number;
  readonly logPath: string;
  release(): void;
  /** The same error, with what the process wrote before it ended. */
  explain(error: unknown): unknown;
}

/** Starts what an offer describes, over its memory: of the offer only what the policy allows has got here. */
export async function startArrival(
  offer: Offer,
  memoryMap: readonly SnapshotRegion[],
  memory: GuestMemory,
  policy: ArrivalPolicy,
  signal: AbortSignal,
): Promise<Arrival> {
  makeSocketFolder(policy.socketFolder);
  if (offer.type === "qemu") return startQemuArrival(offer, memoryMap, memory, policy, signal);
  const socket = socketPathOf(offer, policy);
  const args = ["--incoming", "--end-with-loader", "--socket", socket];
  const process = MachineProcess.start(policy.vhu, args, socket);
  const driver = await orEnd(process, async () => {
    const connected = await process.connect(signal);
    // Before the last of the state is here: while it stands still, no process is started.
    await connected.prepareIncoming(offer);
    return connected;
  });
  return {
    ...{ driver, address: `machine:${socket}`, pid: process.pid, logPath: process.logPath },
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

async function startQemuArrival(
  { machine, name }: Offer,
  memoryMap: readonly SnapshotRegion[],
  memory: GuestMemory,
  policy: ArrivalPolicy,
  signal: AbortSignal,
): Promise<Arrival> {
  const socketPath = socketPathOf({ name }, policy);
  const command = arrivalCommand(machine, policy, socketPath);
  const launch = startQemu({ memoryMap }, memory, command);
  const driver = await orEnd(launch, async () => {
    // Both hosts see the same disks, which the source has until it gives them up: they may change meanwhile.
    const connected = await launch.connect({ signal, force: true });
    try {
      await connected.prepareIncoming({ machine });
      return connected;
    } catch (error) {
      connected[Symbol.dispose]();
      throw launch.explain(error);
    }
  });
  return {
    ...{ driver, address: `qmp:${socketPath}`, pid: launch.pid, logPath: launch.logPath },
    release: () => launch.release(),
    explain: (error) => launch.explain(error),
    [Symbol.dispose]: () => disposeBoth(driver, launch),
  };
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
