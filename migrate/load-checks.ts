import { readFileSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { CompatibilityError, FormatError, SyscallError } from "../src/errors.ts";
import { MAX_IN_MEMORY_STATE_BYTES } from "../src/limits.ts";
import { listeningPaths } from "../src/sys/mod.ts";
import type { PreflightCheck } from "./driver.ts";
import { LocalPrograms, OwnSnapshots, TrustedKeys } from "./policy/mod.ts";
import type { SnapshotReader } from "./snapshot/mod.ts";

const MIB = 1024 * 1024;

export interface LoadCheckOptions {
  /** Ed25519, hexadecimal: the key that has signed the file, if it says so; the signature itself is checked by a load. */
  readonly signedBy?: string | undefined;
  /** What this host would start. */
  readonly programs?: LocalPrograms | undefined;
}

/**
 * Whether a snapshot can be loaded on this host, and if not why: a list of what was looked at. Nothing is started or
 * changed, and no memory is read.
 */
export async function loadChecks(
  reader: SnapshotReader,
  options: LoadCheckOptions = {},
): Promise<PreflightCheck[]> {
  const checks = [
    parentCheck(reader),
    architectureCheck(reader),
    memoryCheck(reader),
    ...spoolChecks(reader),
  ];
  const { machine } = reader.manifest;
  if (machine === undefined) return [...checks, backendCheck(reader)];
  return [...checks, trustCheck(reader, options), ...(await machineChecks(machine, options))];
}

async function machineChecks(
  machine: Readonly<Record<string, unknown>>,
  { programs = new LocalPrograms([]) }: LoadCheckOptions,
): Promise<PreflightCheck[]> {
  const listening = listeningPaths();
  try {
    // Each is loaded when it is needed: together they take longer to load than all the rest of a look at a file.
    if ((machine as { readonly kind?: unknown }).kind === "qemu") {
      const { qemuLoadChecks } = await import("./qemu/mod.ts");
      return await qemuLoadChecks(machine, listening, programs);
    }
    const { machineLoadChecks } = await import("./machine-file/mod.ts");
    return machineLoadChecks(machine, listening);
  } catch (error) {
    if (!isExpected(error)) throw error;
    return [{ name: "machine", ok: false, detail: error.message }];
  }
}

function parentCheck(reader: SnapshotReader): PreflightCheck {
  const name = "files";
  if (reader.parent === undefined) return { name, ok: true, detail: "a full snapshot, which needs no other" };
  try {
    let count = 0;
    for (let file = reader.openParent(); file !== undefined; file = file.openParent()) count += 1;
    return { name, ok: true, detail: `the ${count} that it is based on ${count === 1 ? "is" : "are"} there` };
  } catch (error) {
    if (!isExpected(error)) throw error;
    return { name, ok: false, detail: error.message };
  }
}

function architectureCheck({ header }: SnapshotReader): PreflightCheck {
  const { architecture } = header.host;
  const name = "architecture";
  if (architecture === process.arch || architecture === "unknown")
    return { name, ok: true, detail: architecture };
  return { name, ok: false, detail: `saved on ${architecture}, this host is ${process.arch}` };
}

function memoryCheck({ memoryMap }: SnapshotReader): PreflightCheck {
  const wanted = memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const free = 1024 * Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1] ?? 0);
  const [wantedMib, freeMib] = [wanted, free].map((bytes) => Math.ceil(bytes / MIB));
  const detail = `${wantedMib} MiB for the guest, ${freeMib} MiB available`;
  return {
    name: "memory",
    ok: wanted <= free,
    detail: wanted <= free ? detail : `${detail}: end something else first`,
  };
}

/** A back-end holds a small state in memory while it takes it, and puts a larger one into a file. */
function spoolChecks({ manifest }: SnapshotReader): PreflightCheck[] {
  const wanted = manifest.devices
    .map(({ stateBytes }) => stateBytes)
    .filter((bytes) => bytes > MAX_IN_MEMORY_STATE_BYTES)
    .reduce((sum, bytes) => sum + bytes, 0);
  if (wanted === 0) return [];
  const { bavail, bsize } = statfsSync(tmpdir());
  const ok = wanted <= bavail * bsize;
  const detail = `${Math.ceil(wanted / MIB)} MiB of device state are staged in ${tmpdir()}, ${Math.floor((bavail * bsize) / MIB)} MiB are free`;
  return [
    { name: "disk space", ok, detail: ok ? detail : `${detail}: set TMPDIR to a folder with more room` },
  ];
}

function trustCheck({ root }: SnapshotReader, { signedBy }: LoadCheckOptions): PreflightCheck {
  const name = "trust";
  if (new OwnSnapshots().has(root)) return { name, ok: true, detail: "written by you on this host" };
  const signer = signedBy === undefined ? undefined : new TrustedKeys().nameOf(signedBy);
  if (signer !== undefined)
    return { name, ok: true, detail: `says to be signed by ${signer}; a load checks that` };
  const detail =
    "from elsewhere: vhu migrate load starts programs for it with --trust only, or takes it into a machine that waits";
  return { name, ok: false, detail };
}

function backendCheck({ manifest }: SnapshotReader): PreflightCheck {
  const count = manifest.devices.length;
  const name = "target";
  if (count === 1) return { name, ok: true, detail: "one device without a machine: load it into unix:PATH" };
  return {
    name,
    ok: false,
    detail: `it holds no machine and ${count} devices: there is nothing that takes that`,
  };
}

function isExpected(error: unknown): error is Error {
  return [FormatError, CompatibilityError, SyscallError].some((kind) => error instanceof kind);
}
