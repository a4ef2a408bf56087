import type { Command } from "commander";
import { ControlClient, type MachineStatus, machineStatus, verifyReport } from "../../migrate/machine/mod.ts";
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext, type CommandPage } from "../command.ts";
import { formatBytes } from "../output/format.ts";

const EXIT_STATUS = { 1: "the machine is not in the right state", 5: "no machine answers there" } as const;

interface Verb {
  readonly page: CommandPage;
  run(context: CommandContext, client: ControlClient): Promise<number | undefined>;
}

function page(verb: string, description: string, example: string): CommandPage {
  return {
    usage: `${verb} <machine>`,
    description,
    examples: [[`vhu machine ${verb} machine:/run/web.sock`, example]],
    exitStatus: EXIT_STATUS,
  };
}

function register(parent: Command, { page, run }: Verb): void {
  addCommand(parent, page).action(
    action(async (context, machine: string) => {
      const { path } = parseAddressOf(machine, "machine", ["machine"]);
      using client = ControlClient.connect(path);
      return await run(context, client);
    }),
  );
}

export function registerMachineStatus(parent: Command): void {
  register(parent, {
    page: page("status", "show a machine, its devices and what its workload has done", "what is it doing?"),
    async run({ output, signal }, client) {
      const { result } = await client.request({ command: "status" }, { signal });
      const status = machineStatus.parse(result);
      if (output.json) output.document(status);
      else output.lines(statusLines(status));
      return undefined;
    },
  });
}

export function registerMachineSuspend(parent: Command): void {
  register(parent, {
    page: page(
      "suspend",
      "stop a machine's devices and its workload, keeping everything",
      "stand still until resumed",
    ),
    async run({ output, signal }, client) {
      await client.request({ command: "suspend", hold: "until-resumed" }, { signal });
      output.summary({ runState: "suspended" }, () => ["suspended"]);
      return undefined;
    },
  });
}

export function registerMachineResume(parent: Command): void {
  register(parent, {
    page: page("resume", "let a suspended machine go on", "go on"),
    async run({ output, signal }, client) {
      await client.request({ command: "resume" }, { signal });
      output.summary({ runState: "running" }, () => ["running"]);
      return undefined;
    },
  });
}

export function registerMachineStop(parent: Command): void {
  register(parent, {
    page: page("stop", "end a machine and the back-ends that it started", "end it"),
    async run({ output, signal }, client) {
      await client.request({ command: "stop" }, { signal });
      output.summary({ runState: "stopped" }, () => ["stopped"]);
      return undefined;
    },
  });
}

export function registerMachineVerify(parent: Command): void {
  register(parent, {
    page: page(
      "verify",
      "check everything that a machine's workload wrote, through its devices",
      "is anything lost?",
    ),
    async run({ output, signal }, client) {
      const { result } = await client.request({ command: "verify" }, { signal });
      const report = verifyReport.parse(result);
      const ok = report.failures.length === 0;
      const { checked, lost, torn, repeated, failures } = report;
      output.summary({ ok, ...report }, () => [
        `${checked} checked: ${lost} lost, ${torn} torn, ${repeated} repeated`,
        ...failures,
      ]);
      return ok ? 0 : 1;
    },
  });
}

function statusLines(status: MachineStatus): string[] {
  return [
    `${status.name}: ${status.runState}, ${formatBytes(status.memoryBytes)} of memory, process ${status.pid}`,
    ...status.devices.map(
      ({ name, type, pid, spawned, lost }) =>
        `  ${name} (${type}): ${lost ? "its back-end is gone" : `back-end process ${pid}${spawned ? "" : ", not started by vhu"}`}`,
    ),
    ...status.workloads.map(({ kind, counters }) => {
      const figures = Object.entries(counters).map(([name, value]) => `${name} ${value}`);
      return `  workload ${kind}: ${figures.join(", ")}`;
    }),
  ];
}
