import { PeerError } from "../../src/errors.ts";
import { connectUnix, UnixSocket } from "../../src/sys/mod.ts";
import { ControlConnection } from "../control/mod.ts";
import type { ConsolePortConfig, DeviceConfig } from "../machine-file/mod.ts";

/** Which program serves a device: local policy, never what a file says. */
export interface DevicePrograms {
  /** The command that is `vhu`, e.g. [bun, ".../bin/vhu.ts"]. */
  readonly vhu: readonly string[];
  /** That program's version, for the snapshot's manifest. */
  readonly version: string;
}

/** A back-end that serves one device of the machine: one that the machine started, or one that was there. */
export interface DeviceBackend {
  readonly socket: UnixSocket;
  readonly pid: number;
  /** Undefined where the machine did not start it. */
  readonly process: Bun.Subprocess | undefined;
  /** Of a disk that the machine started: attaches control connections to it. */
  readonly control: ControlConnection | undefined;
}

/** Starts or connects to the back-end of a device. @throws PeerError when it is not there */
export function openBackend(config: DeviceConfig, programs: DevicePrograms): DeviceBackend {
  if (config.socket !== undefined) {
    const socket = connectUnix(config.socket);
    return { socket, pid: socket.peerCredentials().pid, process: undefined, control: undefined };
  }
  // The child gets its end of a socket pair as fd 3: no name in the file system, and its death is seen at once.
  const [ours, theirs] = UnixSocket.pair();
  using _theirs = theirs;
  const [control, theirControl] = config.type === "blk" ? UnixSocket.pair() : [];
  using _theirControl = theirControl;
  const [words, fds] =
    theirControl === undefined ? [[], []] : [["--control-fd", "4"], [theirControl.fd.number]];
  try {
    const child = Bun.spawn(
      [...programs.vhu, "device", "run", ...deviceArguments(config), "--fd", "3", ...words, "--once"],
      {
        stdio: ["ignore", "ignore", "inherit", theirs.fd.number, ...fds],
      },
    );
    const connection = control && new ControlConnection(control, `the back-end of ${config.name}`);
    return { socket: ours, pid: child.pid, process: child, control: connection };
  } catch (cause) {
    ours[Symbol.dispose]();
    control?.[Symbol.dispose]();
    throw new PeerError(`cannot start the back-end of ${config.name}: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** The command line is built anew from the parsed description: nothing in a file is passed on as it stands. */
function deviceArguments(config: DeviceConfig): string[] {
  switch (config.type) {
    case "blk":
      return [
        "blk",
        "--image",
        config.image!,
        ...(config.readonly ? ["--read-only"] : []),
        ...(config.serial === undefined ? [] : ["--id", config.serial]),
      ];
    case "console":
      return ["console", ...(config.port?.flatMap(portArguments) ?? ["--file", config.file!])];
    case "rng":
      return ["rng", ...option("--max-bytes", config["max-bytes"], "--period", config["period-ms"])];
    case "net":
      return [
        "net",
        ...option("--tap", config.tap),
        ...option("--stream", config.stream),
        ...option("--stream-listen", config["stream-listen"]),
        ...option("--mac", config.mac),
        ...option("--mtu", config.mtu),
      ];
    case "fs":
      throw new PeerError(`a ${config.type} device has no back-end of vhu's own; give "socket"`);
  }
}

/** Nothing without a value. */
function option(name: string, value: string | number | undefined, ...more: readonly (string | number)[]) {
  return value === undefined ? [] : [name, `${value}`, ...more.map(String)];
}

function portArguments(port: ConsolePortConfig): string[] {
  const { name, file, socket, pty, console } = port;
  const words = [
    ...(name === "" ? [] : [`name=${name}`]),
    ...(file === undefined ? [] : [`file=${file}`]),
    ...(socket === undefined ? [] : [`socket=${socket}`]),
    ...(pty === undefined ? [] : [`pty=${pty}`]),
    ...(console === undefined ? [] : [`console=${console ? "on" : "off"}`]),
  ];
  // A comma within a value is written twice.
  return ["--port", words.map((word) => word.replaceAll(",", ",,")).join(",")];
}
