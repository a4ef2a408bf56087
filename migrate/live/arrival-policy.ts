import { isAbsolute, join, normalize } from "node:path";
import { VhuError } from "../../src/errors.ts";
import { connectUnix } from "../../src/sys/mod.ts";
import type { PreflightCheck } from "../driver.ts";
import { parseMachineConfig, pathsOf } from "../machine-file/mod.ts";
import { isPlacedBelow } from "../policy/mod.ts";
import { qemuCommand } from "../qemu/mod.ts";
import { lookAtDisk } from "./disk-markers.ts";
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
export function checkArrival(
  offer: Offer,
  policy: ArrivalPolicy,
  names: ReadonlySet<string>,
): PreflightCheck[] {
  const here = hostFacts();
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
    checkName(offer, policy, names),
    checkMemory(offer.memoryBytes, policy),
    ...checkMachine(offer, policy),
    ...offer.disks.map((disk) => {
      const limit = policy.diskMaxBytes ?? Number.POSITIVE_INFINITY;
      if (disk.sizeBytes > limit) {
        return {
          name: "disk",
          ok: false,
          detail: `${disk.path} has ${disk.sizeBytes} bytes; ${limit} may arrive`,
        };
      }
      // Nobody learns from here which other files this host has.
      if (!isWithin(disk.path, policy.roots)) {
        return { name: "disk", ok: false, detail: `${disk.path} is outside of what --root allows` };
      }
      return { name: "disk", ...lookAtDisk(disk) };
    }),
  ];
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$/;

function checkName(
  { name }: Offer,
  { socketFolder }: ArrivalPolicy,
  names: ReadonlySet<string>,
): PreflightCheck {
  if (!NAME.test(name))
    return { name: "name", ok: false, detail: "its name is no file name: give the machine another" };
  const path = join(socketFolder, `${name}.sock`);
  const isTaken = names.has(name) || isListening(path);
  return {
    name: "name",
    ok: !isTaken,
    detail: isTaken ? `${name} is taken: somebody listens at ${path}` : `${path} is free`,
  };
}

function isListening(path: string): boolean {
  try {
    connectUnix(path)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}

function checkMemory(memoryBytes: number, { memoryMaxBytes }: ArrivalPolicy): PreflightCheck {
  const available = availableMemoryBytes() ?? Number.POSITIVE_INFINITY;
  const limit = Math.min(memoryMaxBytes ?? Number.POSITIVE_INFINITY, available);
  const detail = `it has ${memoryBytes} bytes; ${available} are available here, ${memoryMaxBytes ?? "all of them"} may be used`;
  return { name: "memory", ok: memoryBytes <= limit, detail };
}

/** Whether what is to be built is known here, and uses only what it may. */
function checkMachine({ type, machine }: Offer, policy: ArrivalPolicy): PreflightCheck[] {
  try {
    if (type === "qemu") {
      const { program } = qemuCommand(machine, {
        roots: policy.roots,
        program: policy.qemu,
        socketPath: policy.socketFolder,
      });
      return [{ name: "machine", ok: true, detail: `${program} can be started for it` }];
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
