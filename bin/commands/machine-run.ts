import type { Command } from "commander";
import { ControlServer, MachineHost } from "../../migrate/machine/mod.ts";
import { readMachineFile } from "../../migrate/machine-file/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { UsageError } from "../../src/errors.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { vhuCommand } from "../vhu-command.ts";

interface RunOptions {
  readonly socket?: string;
  readonly incoming?: boolean;
  readonly endWithLoader?: boolean;
}

export function registerMachineRun(parent: Command): void {
  addCommand(parent, {
    usage: "run [file]",
    description: `run a native machine

FILE is TOML and describes memory, vhost-user devices and a workload (docs/machine-file.md). The machine runs until
SIGTERM, Ctrl-C or \`vhu machine stop\`, and is controlled through its socket: machine:PATH. With --incoming it has no file: it
waits for \`vhu migrate load SNAPSHOT machine:PATH\`.`,
    examples: [
      ["vhu machine run web.toml", "run the machine that web.toml describes"],
      ["vhu machine run --incoming --socket /run/web.sock", "wait for a machine to be loaded"],
    ],
    exitStatus: {
      0: "stopped by `vhu machine stop` or SIGTERM",
      3: "the machine file is invalid; the message names the field",
      5: "a back-end is not there or does not answer",
    },
  })
    .option("--socket <path>", "control socket, instead of the file's")
    .option("--incoming", "wait for a machine to be loaded")
    .option(
      "--end-with-loader",
      "with --incoming: end when whoever loads is gone before the machine is there",
    )
    .action(action((context, file: string | undefined, options: RunOptions) => run(context, file, options)));
}

/** SIGTERM is how a machine's process is ended: no failure. */
const TERMINATED_STATUS = 128 + 15;

async function run(context: CommandContext, file: string | undefined, options: RunOptions): Promise<number> {
  if ((file === undefined) !== (options.incoming === true))
    throw new UsageError("give either a machine file or --incoming");
  const config = file === undefined ? undefined : readMachineFile(file);
  const socket = options.socket ?? config?.socket;
  if (socket === undefined) throw new UsageError("--incoming needs --socket PATH");
  const { output, signal } = context;
  using loop = new EventLoop();
  using host = new MachineHost(
    loop,
    { programs: { vhu: vhuCommand, version }, endsWithLoader: options.endWithLoader, logger: output.log },
    config,
  );
  using control = new ControlServer(socket, host, loop, output.log);
  signal.addEventListener("abort", () => loop.stop());
  if (config !== undefined) host.machine.start();
  control.serve();
  output.status(`ready, machine:${socket}`, { type: "ready", socket, pid: process.pid });
  if (!signal.aborted) await loop.run();
  const status = (signal.reason as { exitStatus?: number } | undefined)?.exitStatus ?? 0;
  return status === TERMINATED_STATUS ? 0 : status;
}
