import { accessSync, constants } from "node:fs";
import { basename, resolve } from "node:path";
import { VhuError } from "../../src/errors.ts";
import { socketsAt } from "../../src/sys/mod.ts";
import { type BackendRecord, identityDifference, ProgramIdentities } from "../backends/mod.ts";
import type { PreflightCheck } from "../driver.ts";
import { backendArguments, type LocalPrograms } from "../policy/mod.ts";
import { changedDisks, compareVersions } from "./qemu-fit.ts";
import { parseQemuMachine, type QemuMachine } from "./qemu-machine.ts";

/** `qemu --version` and its lists answer at once; one that does not is not looked at any longer. */
const ANSWER_TIMEOUT_MS = 5_000;
const PROGRAM = /^(?:qemu-system-[a-z0-9_]+|qemu-kvm|kvm)$/;

/**
 * Whether this host could load a QEMU machine: program, version, machine type, CPU, disks, sockets of the back-ends. Only the
 * installed QEMU of the recorded name is asked, and nothing is started.
 *
 * @param listening Paths of the sockets at which somebody listens here.
 * @throws CompatibilityError for a machine of a form that is not known
 */
export async function qemuLoadChecks(
  json: unknown,
  listening: ReadonlySet<string>,
  programs: LocalPrograms,
): Promise<PreflightCheck[]> {
  const machine = parseQemuMachine(json);
  const name = basename(machine.executable ?? "").replace(/ \(deleted\)$/, "");
  const program = PROGRAM.test(name) ? Bun.which(name) : null;
  const sockets = await socketChecks(machine, listening, programs);
  const ours = [commandLineCheck(machine), ...diskChecks(machine), ...sockets];
  if (program === null) {
    const what =
      name === "" ? "it is not recorded which program ran the VM" : `${name} is not installed here`;
    return [failed("QEMU", `${what}: install it, or give --qemu PATH`), ...ours];
  }
  const [version, machineTypes, cpus] = await Promise.all(
    [["--version"], ["-machine", "help"], ["-cpu", "help"]].map((words) => answerOf(program, words)),
  );
  return [
    versionCheck(machine, program, version ?? ""),
    machineTypeCheck(machine, machineTypes ?? ""),
    cpuCheck(machine, cpus ?? ""),
    ...ours,
  ];
}

function versionCheck({ version }: QemuMachine, program: string, answer: string): PreflightCheck {
  const here = /version (\d+\.\d+\.\d+)/.exec(answer)?.[1];
  if (here === undefined) return failed("QEMU", `${program} does not tell its version`);
  if (version === undefined)
    return passed("QEMU", `${program} is ${here}; what saved the VM is not recorded`);
  if (compareVersions(here, version) >= 0)
    return passed("QEMU", `${program} is ${here}, saved with ${version}`);
  return failed(
    "QEMU",
    `${program} is ${here}, older than the ${version} that saved the VM: use that or a newer one`,
  );
}

function machineTypeCheck({ machineType }: QemuMachine, answer: string): PreflightCheck {
  const isKnown = answer.split("\n").some((line) => line.split(/\s/, 1)[0] === machineType);
  if (isKnown) return passed("machine type", machineType);
  return failed("machine type", `the QEMU here has no ${machineType}: use the one that saved the VM`);
}

function cpuCheck({ cpuType, cpuCount }: QemuMachine, answer: string): PreflightCheck {
  if (cpuType === undefined) return passed("CPU", "its model is not recorded");
  const model = cpuType.replace(/-(?:x86_64|i386|arm|aarch64)-cpu$|-cpu$/, "");
  const what = `${model}, ${cpuCount} of them`;
  if (model === "host" && !hasKvm())
    return failed("CPU", `${what}: needs KVM, and /dev/kvm cannot be used here`);
  const isKnown = answer.split("\n").some((line) => line.trim().split(/\s/, 2).includes(model));
  return isKnown
    ? passed("CPU", what)
    : failed("CPU", `the QEMU here has no CPU ${model}: use the one that saved the VM`);
}

function hasKvm(): boolean {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function commandLineCheck({ commandLine }: QemuMachine): PreflightCheck {
  if (commandLine !== undefined) return passed("command line", "recorded");
  return failed(
    "command line",
    "not recorded: start QEMU with -incoming defer yourself, and load into qmp:PATH",
  );
}

function diskChecks(machine: QemuMachine): PreflightCheck[] {
  const changed = new Set(changedDisks(machine));
  return machine.disks.map((disk) => {
    const name = `disk ${disk.device}`;
    if (disk.copy !== undefined) return passed(name, `a copy beside the snapshot is used: ${disk.copy.file}`);
    if (disk.modifiedNs === undefined)
      return passed(name, `${disk.path}: it was not recorded whether that is a file`);
    if (!changed.has(disk)) return passed(name, `${disk.path}: as it was at the save`);
    return failed(
      name,
      `${disk.path} is not what it was at the save: put that back, or load with --force if the content is the same`,
    );
  });
}

function socketChecks(
  { sockets, virtioDevices, backends = [], workingFolder = "/" }: QemuMachine,
  listening: ReadonlySet<string>,
  programs: LocalPrograms,
): Promise<PreflightCheck[]> {
  const identities = new ProgramIdentities(programs);
  const used = new Set([
    ...virtioDevices.map(({ chardev }) => chardev).filter((chardev) => chardev !== undefined),
    ...backends.map(({ chardev }) => chardev),
  ]);
  return Promise.all(
    sockets
      .filter(({ chardev, listens }) => used.has(chardev) && listens !== true)
      .map(async ({ chardev, path: recordedPath }) => {
        const path = resolve(workingFolder, recordedPath);
        const name = `back-end ${chardev}`;
        const record = backends.find((backend) => backend.chardev === chardev);
        if (listening.has(path) || socketsAt(path).some(({ isListening }) => isListening)) {
          const other = identityDifference(record ?? {}, await identities.ofListener(path));
          return passed(name, `somebody listens at ${path}${other === undefined ? "" : `: ${other}`}`);
        }
        if (record?.commandLine !== undefined) return startCheck(name, record, programs, identities);
        return failed(name, `nobody listens at ${path}: start the back-end first`);
      }),
  );
}

/** Whether a load could start it, as far as its command line and the installed programs tell. */
async function startCheck(
  name: string,
  record: BackendRecord,
  programs: LocalPrograms,
  identities: ProgramIdentities,
): Promise<PreflightCheck> {
  const { commandLine = [], workingFolder } = record;
  try {
    const { role } = backendArguments(commandLine, { roots: ["/"], workingFolder });
    const [first = ""] = programs.commandOf(role);
    const other = identityDifference(record, await identities.ofRole(role));
    const program = role === "vhu" ? "this vhu" : first;
    return passed(name, `load starts it: ${program}${other === undefined ? "" : ` (${other})`}`);
  } catch (error) {
    if (error instanceof VhuError) return failed(name, error.message);
    throw error;
  }
}

async function answerOf(program: string, words: readonly string[]): Promise<string> {
  const child = Bun.spawn([program, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: ANSWER_TIMEOUT_MS,
  });
  return child.stdout.text();
}

function passed(name: string, detail: string): PreflightCheck {
  return { name, ok: true, detail };
}

function failed(name: string, detail: string): PreflightCheck {
  return { name, ok: false, detail };
}
