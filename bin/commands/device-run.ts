import { type Command, InvalidArgumentError } from "commander";
import type { ConsoleSize } from "../../devices/console/mod.ts";
import { action, addCommand } from "../command.ts";
import { parsePort } from "../device/console-ports.ts";
import { registerBlk } from "../device/register-blk.ts";
import { registerNet } from "../device/register-net.ts";
import { registerRng } from "../device/register-rng.ts";
import type { RunConsoleOptions } from "../device/run-console.ts";
import { addRunOptions } from "../device/run-options.ts";

const EXIT_STATUS = {
  0: "ended by SIGTERM, or by the front-end's hanging up with --once or --fd",
  1: "the image or the socket cannot be used, or the front-end broke the protocol (--once, --fd)",
  2: "the command line is wrong, or the socket's path is taken",
  5: "the front-end stalled or died in the middle of a message (--once, --fd), or none listened (--connect)",
} as const;

const SERVES = `Serves one front-end at a time, one after the other, until SIGTERM or Ctrl-C; a restarted back-end takes up the
requests that a killed one left. When it is ready it says so on stderr, with --json as {"type":"ready"} on stdout.`;

/** `vhu device run TYPE`: one command for each type of device. */
export function registerDeviceRun(device: Command): void {
  const run = device.command("run").description("serve a device to a VMM, as a vhost-user back-end");
  registerBlk(run, SERVES, EXIT_STATUS);
  registerConsole(run);
  registerNet(run, SERVES, EXIT_STATUS);
  registerRng(run, SERVES, EXIT_STATUS);
}

function registerConsole(run: Command): void {
  const command = addCommand(run, {
    usage: "console",
    description: `serve a console with one port, or with several\n\n${SERVES} While nothing takes the guest's output, 64 KiB of it are
kept; then the guest waits, so that nothing is lost. With --port the console has MULTIPORT: port 0 is a console, the others are
/dev/virtio-ports/NAME in the guest, unless console=on or console=off says otherwise.`,
    examples: [
      [
        "vhu device run console --socket /run/con.sock --socket-end /run/con-host.sock",
        "one client at a time",
      ],
      ["vhu device run console --socket /run/con.sock --file guest.log", "output only, appended to a file"],
      [
        "vhu device run console --socket /run/con.sock --port name=tty,pty=/run/tty --port name=log,file=guest.log --port name=agent,socket=/run/agent.sock",
        "a terminal for screen or picocom, a log, and a channel for an agent:",
      ],
    ],
    exitStatus: EXIT_STATUS,
  });
  addRunOptions(command)
    .option("--socket-end <path>", "the host's end is a client of this UNIX socket")
    .option("--file <path>", "the host's end is a file that the output is appended to")
    .option("--stdio", "the host's end is standard input and output")
    .option("--pty", "the host's end is a pseudo-terminal, whose path is printed")
    .option("--pty-link <path>", "the same, and a symbolic link to it")
    .option(
      "--port <spec>",
      "a port, as name=NAME,pty[=LINK] or socket=PATH, file=PATH, stdio; may be given several times",
      parsePort,
    )
    .option("--size <columns>x<rows>", "what the guest is told (default: 80x25)", consoleSize)
    .action(
      action(async (context, options: RunConsoleOptions) => {
        const { confineDevice, consoleNeeds } = await import("../device/confine-device.ts");
        confineDevice(context, options, consoleNeeds(options));
        const { runConsole } = await import("../device/run-console.ts");
        return runConsole(context, options);
      }),
    );
}

function consoleSize(text: string): ConsoleSize {
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const [columns, rows] = [Number(match?.[1]), Number(match?.[2])];
  if (columns <= 0xffff && rows <= 0xffff) return { columns, rows };
  throw new InvalidArgumentError("Expected e.g. 80x25.");
}
