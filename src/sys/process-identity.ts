import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { constants, hostname } from "node:os";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { executableOf } from "./process.ts";
import { processCalls } from "./process-calls.ts";

/** A process that cannot be taken for another one which got its pid later. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: when it started, in clock ticks since boot. */
  readonly startTicks: string;
  readonly executable?: string | undefined;
}

/** Where pids and start times mean something: one boot of one kernel, one pid namespace. */
export interface HostIdentity {
  readonly bootId: string;
  readonly pidNamespace: string;
  /** What tells a host that was started again from another one (machine-id(5)); where there is none, its name has to. */
  readonly machineId?: string | undefined;
  readonly hostName?: string | undefined;
}

/** Fields of /proc/PID/stat, counted from the one after the command's closing bracket (proc(5)). */
const STATE_FIELD = 0;
const START_TIME_FIELD = 19;
const ENDED_STATES = ["Z", "X"];

/** The same numbers on x86_64 and aarch64 (include/uapi/asm-generic/unistd.h). */
const SYS = { pidfd_send_signal: 424, pidfd_open: 434 } as const;

export function hostIdentity(): HostIdentity {
  return {
    bootId: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    pidNamespace: readlinkSync("/proc/self/ns/pid"),
    ...machineIdentity(),
  };
}

const MACHINE_ID_FILES = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

function machineIdentity(): Pick<HostIdentity, "machineId" | "hostName"> {
  const hostName = hostname();
  for (const file of MACHINE_ID_FILES) {
    try {
      const machineId = readFileSync(file, "utf8").trim();
      // An image that has not been started yet has an empty one, or "uninitialized".
      if (/^[0-9a-f]{32}$/.test(machineId)) return { machineId, hostName };
    } catch {
      // Not every system has one.
    }
  }
  return { hostName };
}

/** Undefined where there is no such process, or it has ended and nobody has waited for it yet. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  const startTicks = startTicksOf(pid);
  if (startTicks === undefined) return undefined;
  const executable = executableOf(pid);
  return { pid, startTicks, ...(executable === undefined ? {} : { executable }) };
}

/** In clock ticks since boot; undefined for a process that is gone. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return ENDED_STATES.includes(fields[STATE_FIELD] ?? "") ? undefined : fields[START_TIME_FIELD];
  } catch {
    return undefined;
  }
}

/** Whether this very process still runs, not another one with its pid. */
export function isRunning({ pid, startTicks, executable }: ProcessIdentity): boolean {
  if (startTicksOf(pid) !== startTicks) return false;
  const now = executableOf(pid);
  return executable === undefined || now === undefined || programOf(now) === programOf(executable);
}

/**
 * Signals this very process: its pid is held by a pidfd while it is compared. Returns false where it is gone.
 * @throws SyscallError EPERM for another user's
 */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  const number = processCalls.syscall(SYS.pidfd_open, identity.pid, 0, 0, 0);
  if (number < 0) {
    if (lastErrno() === Errno.ESRCH) return false;
    throw syscallError("pidfd_open", `process ${identity.pid}`);
  }
  using fd = new Fd(number, `process ${identity.pid}`);
  if (!isRunning(identity)) return false;
  const result = processCalls.syscall(SYS.pidfd_send_signal, fd.number, constants.signals[signal], 0, 0);
  if (result < 0 && lastErrno() === Errno.ESRCH) return false;
  check(result, "pidfd_send_signal", fd.label);
  return true;
}

/** This user's processes that were started with an environment variable of this value; not this process. */
export function processesWithVariable(name: string, value: string): ProcessIdentity[] {
  const wanted = `${name}=${value}`;
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid && hasVariable(entry, wanted))
    .flatMap((entry) => identityOf(Number(entry)) ?? []);
}

function hasVariable(pid: string, wanted: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`, "latin1").split("\0").includes(wanted);
  } catch {
    // Another user's, or gone.
    return false;
  }
}

/** A program that was replaced on disk while it runs. */
function programOf(executable: string): string {
  return executable.replace(/ \(deleted\)$/, "");
}
