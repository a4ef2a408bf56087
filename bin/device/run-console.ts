import {
  ConsoleDevice,
  type ConsoleEnd,
  type ConsoleSize,
  FileEnd,
  PtyEnd,
  SocketEnd,
  StreamEnd,
} from "../../devices/console/mod.ts";
import type { Logger } from "../../src/logger.ts";
import { EventLoop, terminalSize } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { toJson } from "../output/json.ts";
import { capabilities } from "./capabilities.ts";
import { type EndOptions, type EndSpec, endsOf } from "./console-ports.ts";
import { loggerOf } from "./device-logger.ts";
import { placeOf } from "./place.ts";
import type { RunOptions } from "./run-options.ts";
import { serveDevice } from "./serve-device.ts";

export interface RunConsoleOptions extends RunOptions, EndOptions {
  readonly size?: ConsoleSize;
}

/** `vhu device run console`. Returns the exit status. */
export async function runConsole(context: CommandContext, options: RunConsoleOptions): Promise<number> {
  if (options.printCapabilities) {
    context.output.line(toJson(capabilities.console));
    return 0;
  }
  placeOf(options);
  const specs = endsOf(options);
  // The guest's output is what stdout has then.
  if (specs.some(({ kind }) => kind === "stdio")) context.output.reserveStdout();
  const logger = loggerOf(context, options);
  using stack = new DisposableStack();
  const loop = stack.use(new EventLoop());
  const ends = specs.map((spec) => stack.use(openEnd(spec, loop, logger)));
  const { port: ports, size } = options;
  const own = ports === undefined ? ends[0]! : ports.map((port, id) => ({ ...port, end: ends[id]! }));
  const device = new ConsoleDevice(own, { size, logger });
  for (const [id, { name, end }] of device.ports.entries()) {
    if (end instanceof PtyEnd) announcePty(context, id, name, end.path);
  }
  const id = specs.findIndex(({ kind }) => kind === "stdio");
  if (id >= 0 && size === undefined) stack.use(followTerminal(device, id));
  return await serveDevice(context, device, loop, options);
}

function openEnd(spec: EndSpec, loop: EventLoop, logger: Logger): ConsoleEnd & Disposable {
  switch (spec.kind) {
    case "socket":
      return new SocketEnd(spec.path, loop, logger);
    case "file":
      return new FileEnd(spec.path, loop, logger);
    case "stdio":
      return StreamEnd.ofProcess(loop);
    case "pty":
      return new PtyEnd(loop, spec.link);
  }
}

const STDOUT = 1;

/** The guest's screen is as large as ours, and stays so. */
function followTerminal(device: ConsoleDevice, id: number): Disposable {
  const resize = () => {
    const size = terminalSize(STDOUT);
    if (size !== undefined) device.resize(size, id);
  };
  resize();
  process.on("SIGWINCH", resize);
  return { [Symbol.dispose]: () => void process.off("SIGWINCH", resize) };
}

/** Where others find the terminal. */
function announcePty({ output }: CommandContext, port: number, name: string, path: string): void {
  if (output.json) output.line(toJson({ type: "pty", port, name, path }));
  else output.status(`port ${port}${name === "" ? "" : ` (${name})`} is ${path}`);
}
