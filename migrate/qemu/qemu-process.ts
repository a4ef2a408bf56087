import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { redactArguments } from "./redact-arguments.ts";

/** The process behind a monitor, as /proc shows it. */
export interface QemuProcess {
  readonly pid: number;
  readonly executable: string;
  /** Secrets are redacted. */
  readonly commandLine: readonly string[];
}

/** A package's names for it: qemu-system-x86_64, qemu-kvm, kvm; a deleted file (an upgrade) has a suffix. */
const QEMU_NAMES = /^(?:qemu-system-[a-z0-9_]+|qemu-kvm|kvm)(?: \(deleted\))?$/;

/**
 * The QEMU of a pid. A monitor may listen on a socket that libvirt bound, and a daemonized QEMU has another pid than the
 * one that bound it: what is not QEMU is not taken for it.
 */
export function qemuProcess(pid: number): QemuProcess | undefined {
  try {
    const executable = readlinkSync(`/proc/${pid}/exe`);
    if (!QEMU_NAMES.test(basename(executable))) return undefined;
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
    return { pid, executable, commandLine: redactArguments(commandLine) };
  } catch {
    // Gone, or another user's.
    return undefined;
  }
}
