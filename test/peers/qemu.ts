import { closeSync, existsSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import type { Guest } from "./guest.ts";
import { requirePeers } from "./peer.ts";

export interface QemuOptions {
  /** Folder for the serial log, stderr and the QMP socket. Keep it short: a socket's path has 107 bytes. */
  readonly dir: string;
  /** Devices and whatever else, after the arguments every test shares. */
  readonly args: readonly string[];
  /** What to boot. Without it QEMU gets no -kernel. */
  readonly guest?: Guest;
  /** Size of the guest's memory, in MiB. Default 512. */
  readonly memoryMib?: number;
  /** The `-object` that is the guest's memory, with `id=mem`. Default: a shared memfd of `memoryMib`. */
  readonly memoryObject?: string;
  /** Keep what is in the serial log already, as a VM that arrives from elsewhere does. */
  readonly appendSerial?: boolean;
  /** What to run QEMU by, e.g. ["ip", "netns", "exec", "a"]. */
  readonly within?: readonly string[];
  /** No backend for the memory: QEMU makes one itself, which is not shared. */
  readonly hasPlainMemory?: boolean;
  /** Names the files in `dir`, for several QEMUs in one folder. Default "qemu". */
  readonly name?: string;
}

export interface RunningQemu extends AsyncDisposable {
  readonly process: Subprocess;
  /** Path of the QMP monitor's UNIX socket. It is there once QEMU listens. */
  readonly qmpPath: string;
  /** What the guest has written to its serial console so far, with "\n" line ends. */
  serial(): string;
  /** What QEMU itself has said. */
  stderr(): string;
  /** Waits until the serial output matches; the match. Throws when QEMU ends first, or after the deadline. */
  waitForSerial(pattern: RegExp, timeoutMs: number): Promise<string>;
  /** Waits until QEMU ends by itself, e.g. because the guest powered off; its exit status. */
  waitForExit(timeoutMs: number): Promise<number>;
  /** Ends QEMU with SIGKILL, by its pid, if it still runs. Safe to call twice. */
  stop(): Promise<void>;
}

// How often the serial log is looked at. A file, not a pipe: QEMU must not stall while a test blocks its thread.
const POLL_MS = 20;

/**
 * Starts QEMU under TCG with the machine that all the tests share. It ends with this process at the latest.
 *
 * @throws Error when QEMU is not installed
 */
export function startQemu(options: QemuOptions): RunningQemu {
  const peers = requirePeers(["qemu-system-x86_64"]);
  if (peers === undefined) throw new Error("QEMU is missing: run test/peers/install.sh as root");
  const base = join(options.dir, options.name ?? "qemu");
  const paths = { serial: `${base}.serial`, stderr: `${base}.stderr`, qmp: `${base}.qmp` };
  for (const path of Object.values(paths)) rmSync(path, { force: true });
  const stderr = openSync(paths.stderr, "w");
  const process = Bun.spawn({
    // setpriv makes the kernel end QEMU even when the test run itself is killed.
    cmd: [
      ...["setpriv", "--pdeathsig", "KILL", "--", ...(options.within ?? [])],
      ...peers["qemu-system-x86_64"].command,
      ...machineArguments(options, paths),
      ...options.args,
    ],
    stdio: ["ignore", stderr, stderr],
  });
  closeSync(stderr);
  const stop = async () => {
    if (process.exitCode === null && process.signalCode === null) process.kill("SIGKILL");
    await process.exited;
  };
  const qemu: RunningQemu = {
    process,
    qmpPath: paths.qmp,
    serial: () => (existsSync(paths.serial) ? readFileSync(paths.serial, "latin1").replaceAll("\r", "") : ""),
    stderr: () => readFileSync(paths.stderr, "utf8"),
    waitForSerial: (pattern, timeoutMs) => waitForSerial(qemu, pattern, timeoutMs),
    waitForExit: (timeoutMs) => waitForExit(qemu, timeoutMs),
    stop,
    [Symbol.asyncDispose]: stop,
  };
  return qemu;
}

function machineArguments(options: QemuOptions, paths: { serial: string; qmp: string }): string[] {
  const size = options.memoryMib ?? 512;
  const memory = options.memoryObject ?? `memory-backend-memfd,id=mem,size=${size}M,share=on`;
  const boot = options.guest && [
    ...["-kernel", options.guest.kernel, "-initrd", options.guest.initrd],
    ...["-append", "console=ttyS0 quiet mitigations=off tsc=reliable panic=-1"],
  ];
  return [
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"],
    // hpet=off and rdrand: without them the boot under TCG takes seconds longer.
    ...["-machine", `q35${options.hasPlainMemory ? "" : ",memory-backend=mem"},hpet=off`],
    ...["-accel", "tcg", "-cpu", "qemu64,+rdrand", "-m", `${size}`],
    ...(options.hasPlainMemory ? [] : ["-object", memory]),
    ...[
      "-chardev",
      `file,id=serial0,path=${paths.serial}${options.appendSerial ? ",append=on" : ""}`,
      "-serial",
      "chardev:serial0",
    ],
    ...["-qmp", `unix:${paths.qmp},server=on,wait=off`],
    ...(boot ?? []),
  ];
}

async function waitForSerial(qemu: RunningQemu, pattern: RegExp, timeoutMs: number): Promise<string> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    // Asked before the log is read, so that the last output of a QEMU that ends is seen.
    const ended = qemu.process.exitCode !== null || qemu.process.signalCode !== null;
    const match = qemu.serial().match(pattern);
    if (match !== null) return match[0];
    if (ended) throw failure(qemu, `QEMU ended before its guest wrote ${pattern}`);
    if (performance.now() > deadline) throw failure(qemu, `no ${pattern} in ${timeoutMs} ms`);
    await Bun.sleep(POLL_MS);
  }
}

async function waitForExit(qemu: RunningQemu, timeoutMs: number): Promise<number> {
  const status = await Promise.race([qemu.process.exited, Bun.sleep(timeoutMs)]);
  if (status === undefined) throw failure(qemu, `QEMU still runs after ${timeoutMs} ms`);
  return status;
}

function failure(qemu: RunningQemu, what: string): Error {
  const { exitCode, signalCode } = qemu.process;
  const tail = qemu.serial().split("\n").slice(-30).join("\n");
  return new Error(
    `${what} (exit ${exitCode ?? signalCode})\nstderr: ${qemu.stderr()}\nserial ends:\n${tail}`,
  );
}
