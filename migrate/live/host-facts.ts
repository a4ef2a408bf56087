import { readFileSync } from "node:fs";
import { hostname } from "node:os";

export interface HostFacts {
  readonly host: string;
  readonly architecture: string;
  readonly cpu: string;
}

export function hostFacts(): HostFacts {
  return { host: hostname(), architecture: process.arch, cpu: cpuModel() };
}

/** Bytes that new memory can have, by the kernel's estimate. */
export function availableMemoryBytes(): number | undefined {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo"))?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

function cpuModel(): string {
  return /^model name\s*:\s*(.*)$/m.exec(read("/proc/cpuinfo"))?.[1] ?? "unknown";
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
