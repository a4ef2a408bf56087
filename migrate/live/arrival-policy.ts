import { lstatSync } from "node:fs";
import { isAbsolute, join, normalize } from "node:path";
import { CompatibilityError, SyscallError, VhuError } from "../../src/errors.ts";
import { connectUnix, listeningPaths } from "../../src/sys/mod.ts";
import type { PreflightCheck } from "../driver.ts";
import { parseMachineConfig, pathsOf } from "../machine-file/mod.ts";
import { isPlacedBelow, LocalPrograms, qemuDisks, qemuMemoryBytes } from "../policy/mod.ts";
import { checkCpu, type LoadPlan, loadPlan } from "../qemu/mod.ts";
import { type DiskPlan, planDisks } from "./arrival-disks.ts";
import type { ArrivalRoom } from "./arrival-room.ts";
import { diskPathsOf } from "./disk-markers.ts";
import { availableMemoryBytes, hostFacts } from "./host-facts.ts";
import type { Offer } from "./messages.ts";

/** What may arrive here. The other side only names data: what runs is decided by this. */
export interface ArrivalPolicy {
  readonly allow: readonly ("machine" | "qemu")[];
  /** Folders that a machine's files and sockets may lie in. */
  readonly roots: readonly string[];
  readonly memoryMaxBytes?: number | undefined;
  /** The largest disk. */
  readonly diskMaxBytes?: number | undefined;
  /** Where control sockets and monitors go. */
  readonly socketFolder: string;
  /** The command that is vhu. */
  readonly vhu: readonly string[];
  /** The QEMU to start, instead of the installed one of the recorded name. */
  readonly qemu?: string | undefined;
}

/** Everything that is looked at before a page is sent. */
export function checkArrival(offer: Offer, policy: ArrivalPolicy, room: ArrivalRoom): PreflightCheck[] {
  const here = hostFacts();
  const { checks, copies } = planArrivingDisks(offer, policy, room);
  return [
    {
      name: "host",
      ok: offer.architecture === here.architecture,
      detail: `${offer.architecture} there, ${here.architecture} here; CPU ${here.cpu}`,
    },
    {
      name: "policy",
      ok: policy.allow.includes(offer.type),
      detail: `${offer.type} machines ${policy.allow.includes(offer.type) ? "may" : "may not"} arrive here`,
    },
    checkName(offer, policy, room),
    checkMemory(offer.memoryBytes, policy, room),
    ...checkMachine(offer, policy, new Set(copies.map(({ path }) => path))),
    ...checks,
  ];
}

/**
 * How a machine that arrives is started: QEMU as it is now, with what was plugged in since, as itself; and those of its back-ends that
 * do not wait here already.
 * @param made Images that are not there yet.
 * @throws CompatibilityError for what policy refuses, or what is not recorded; StateError for a back-end that serves another VM
 */
export function arrivalPlan(
  machine: Offer["machine"],
  { roots, vhu, qemu }: ArrivalPolicy,
  socketPath: string,
  made?: ReadonlySet<string>,
): LoadPlan {
  const programs = new LocalPrograms(vhu);
  const options = { roots, programs, program: qemu, socketPath, made };
  const plan = loadPlan(machine, { ...options, keepsGeneration: true });
  for (const { type, chardev, socket, command } of plan.backends) {
    const isOurs = vhu.every((word, at) => command[at] === word);
    // vhu's own devices know raw images only; of what others make of a sender's bytes, nobody here has looked.
    const foreign = isOurs
      ? undefined
      : [...(made ?? [])].find((path) => command.some((word) => word.includes(path)));
    const why = command.some((word) => /^--tap(?:=|$)/.test(word))
      ? "uses an interface of its host, which a sender may not choose here"
      : foreign && `would open ${foreign}, which the sender brings`;
    if (why !== undefined)
      throw new CompatibilityError(`the ${type} back-end of ${chardev} ${why}: start it at ${socket} first`);
  }
  return plan;
}

/** Whether QEMU can give it the processor that it has: what is allowed is started for that, and ended. */
export async function checkArrivalCpu(
  offer: Offer,
  policy: ArrivalPolicy,
  room: ArrivalRoom,
): Promise<PreflightCheck[]> {
  const { type, machine, cpuFeatures } = offer;
  if (type !== "qemu" || cpuFeatures === undefined || !policy.allow.includes(type)) return [];
  try {
    const made = new Set(planArrivingDisks(offer, policy, room).copies.map(({ path }) => path));
    return [await checkCpu(arrivalPlan(machine, policy, policy.socketFolder, made).qemu, cpuFeatures)];
  } catch (error) {
    // What is wrong with its command line, `checkArrival` says.
    if (error instanceof VhuError) return [];
    throw error;
  }
}

/** ROMs and a graphics card's memory are not in what QEMU calls its memory. */
export const EXTRA_MEMORY_BYTES = 256 << 20;
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/;

function checkName({ name }: Offer, { socketFolder }: ArrivalPolicy, room: ArrivalRoom): PreflightCheck {
  if (!NAME.test(name))
    return { name: "name", ok: false, detail: "its name is no file name: give the machine another" };
  const path = join(socketFolder, `${name}.sock`);
  if (room.hasName(name))
    return { name: "name", ok: false, detail: `${name} is taken: another of that name is arriving` };
  const user = userOf(path);
  return { name: "name", ok: user === undefined, detail: user ?? `${path} is free` };
}

/**
 * Who has a path already. The kernel's list tells without touching anybody; but it has the names that sockets of this network
 * namespace were bound to, in whatever mount namespace: so what is not there is free, and what is there and on no list may be
 * another network namespace's, or nobody's any more, which only a connection tells.
 */
function userOf(path: string): string | undefined {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (facts === undefined) return undefined;
  if (!facts.isSocket()) return `${path} is there, and no socket`;
  if (listeningPaths().has(path)) return `somebody listens at ${path}`;
  try {
    connectUnix(path)[Symbol.dispose]();
    return `somebody listens at ${path}, from another network namespace or by another name of it`;
  } catch (error) {
    const { cause } = error as Error;
    const errno = cause instanceof SyscallError ? cause.errno : "";
    if (errno === "ECONNREFUSED" || errno === "ENOENT") return undefined;
    return `${path} is there, and whose it is cannot be found out: ${(error as Error).message}`;
  }
}

function checkMemory(
  memoryBytes: number,
  { memoryMaxBytes }: ArrivalPolicy,
  room: ArrivalRoom,
): PreflightCheck {
  const free = availableMemoryBytes() ?? Number.POSITIVE_INFINITY;
  const available = Math.max(free - room.promisedBytes, 0);
  const limit = Math.min(memoryMaxBytes ?? Number.POSITIVE_INFINITY, available);
  const detail = `it has ${memoryBytes} bytes; ${available} are available here, ${memoryMaxBytes ?? "all of them"} may be used`;
  return { name: "memory", ok: memoryBytes <= limit, detail };
}

/** What becomes of a machine's disks here. */
export function planArrivingDisks(
  { machine, disks }: Offer,
  { roots, diskMaxBytes }: ArrivalPolicy,
  room: ArrivalRoom,
): DiskPlan {
  return planDisks(pathsOrNone(machine), disks, {
    diskMaxBytes,
    isAllowed: (path) => isWithin(path, roots),
    writerOf: (path) => room.writerOf(path),
  });
}

/** None of a machine that is none: that is said elsewhere. */
function pathsOrNone(machine: Offer["machine"]): string[] {
  try {
    return diskPathsOf(machine);
  } catch (error) {
    if (error instanceof VhuError) return [];
    throw error;
  }
}

/** Whether what is to be built is known here, and uses only what it may. */
function checkMachine(
  { type, machine, memoryBytes, disks }: Offer,
  policy: ArrivalPolicy,
  made: ReadonlySet<string>,
): PreflightCheck[] {
  try {
    if (type === "qemu") {
      const { qemu, backends, notes } = arrivalPlan(machine, policy, policy.socketFolder, made);
      const { args } = qemu;
      // Its content is the sender's: read as something else, it could name other files.
      const other = qemuDisks(args).find(
        ({ path, format }) =>
          made.has(path) && disks.find((disk) => disk.path === path)?.copy?.format !== format,
      );
      if (other !== undefined) {
        const detail = `${other.path} is used as ${other.format}, and offered as another format`;
        return [{ name: "machine", ok: false, detail }];
      }
      const bytes = qemuMemoryBytes(args);
      if (bytes > memoryBytes + EXTRA_MEMORY_BYTES) {
        const detail = `its QEMU would take ${bytes} bytes of memory, and ${memoryBytes} were offered`;
        return [{ name: "machine", ok: false, detail }];
      }
      return [
        { name: "machine", ok: true, detail: `${qemu.program} can be started for it` },
        ...backends.map(({ chardev, type, command }) => {
          const detail = `${type}: is started: ${command[0]}`;
          return { name: `back-end ${chardev}`, ok: true, detail };
        }),
        ...notes.map((detail) => ({ name: "back-end", ok: true, detail })),
      ];
    }
    const config = parseMachineConfig(machine, "offer");
    const outside = config.device.flatMap(pathsOf).filter((path) => !isWithin(path, policy.roots));
    const taps = config.device.flatMap((each) =>
      each.type === "net" && each.tap !== undefined ? [each.tap] : [],
    );
    if (taps.length > 0) {
      // No path, so no --root allows it: whoever sends must not choose among this host's networks.
      const detail = `it uses the interface ${taps.join(", ")}, which a sender may not choose here: load it from a file`;
      return [{ name: "machine", ok: false, detail }];
    }
    if (outside.length === 0)
      return [{ name: "machine", ok: true, detail: `${config.device.length} devices, all known here` }];
    const detail = `it uses ${outside.join(", ")}, outside of what --root allows (${policy.roots.join(", ") || "nothing"})`;
    return [{ name: "machine", ok: false, detail }];
  } catch (error) {
    if (!(error instanceof VhuError)) throw error;
    return [{ name: "machine", ok: false, detail: error.message }];
  }
}

function isWithin(path: string, roots: readonly string[]): boolean {
  return (
    isAbsolute(path) &&
    normalize(path) === path &&
    roots.some((root) => path !== root && isPlacedBelow(path, root))
  );
}
