import { accessSync, constants, existsSync, readFileSync, statfsSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { dependencies } from "../../package.json" with { type: "json" };
import { formatBytes } from "../output/format.ts";
import type { Check } from "./finding.ts";

/** What a device state in chunks of 1 MiB wants of a pipe; more is not used. */
const WANTED_PIPE_BYTES = 1024 * 1024;
/** Below this, a snapshot that comes through a pipe hardly fits. */
const WANTED_SPOOL_BYTES = 1024 * 1024 * 1024;

/** What can be learnt about the host without a system call of our own. */
export const hostChecks: readonly Check[] = [
  {
    name: "Linux",
    isEssential: true,
    remedy: "use Linux on x86_64 or aarch64",
    look: () => {
      const detail = `${process.platform} ${release()}, ${process.arch}`;
      const isKnown = process.platform === "linux" && ["x64", "arm64"].includes(process.arch);
      if (!isKnown) return { state: "missing", detail };
      if (process.arch === "x64") return { state: "ok", detail };
      return { state: "note", detail, remedy: "vhu is tested on x86_64 only" };
    },
  },
  {
    name: "Bun",
    isEssential: true,
    remedy: `use Bun ${dependencies.bun} or newer: npm install brings it`,
    look: () => {
      const isNewEnough = Bun.semver.satisfies(Bun.version, `>=${dependencies.bun}`);
      return { state: isNewEnough ? "ok" : "missing", detail: Bun.version };
    },
  },
  {
    name: "pipe size",
    isEssential: false,
    remedy: `sysctl fs.pipe-max-size=${WANTED_PIPE_BYTES}: device states then move faster`,
    look: () => {
      const bytes = Number(readFileSync("/proc/sys/fs/pipe-max-size", "utf8"));
      return { state: bytes < WANTED_PIPE_BYTES ? "note" : "ok", detail: `up to ${formatBytes(bytes)}` };
    },
  },
  {
    name: "temporary space",
    isEssential: false,
    remedy: "set TMPDIR to a folder with more room: snapshots and device states from a pipe are staged there",
    look: () => {
      const { bavail, bsize } = statfsSync(tmpdir());
      const bytes = bavail * bsize;
      return {
        state: bytes < WANTED_SPOOL_BYTES ? "note" : "ok",
        detail: `${formatBytes(bytes)} in ${tmpdir()}`,
      };
    },
  },
  {
    name: "huge pages",
    isEssential: false,
    remedy: "only for guests on huge pages: sysctl vm.nr_hugepages=N",
    look: () => {
      const meminfo = readFileSync("/proc/meminfo", "utf8");
      const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(meminfo)?.[1] ?? 0);
      const [total, free, kib] = [field("HugePages_Total"), field("HugePages_Free"), field("Hugepagesize")];
      if (total === 0) return { state: "note", detail: "none reserved" };
      return { state: "ok", detail: `${free} of ${total} free, ${formatBytes(kib * 1024)} each` };
    },
  },
  {
    name: "KVM",
    isEssential: false,
    remedy:
      "enable virtualization in the firmware (or nested, in a VM) and join the group kvm; QEMU then does without TCG",
    look: () => {
      if (!existsSync("/dev/kvm")) return { state: "note", detail: "no /dev/kvm" };
      accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
      return { state: "ok", detail: "/dev/kvm may be opened (no guest was booted to try it)" };
    },
  },
];
