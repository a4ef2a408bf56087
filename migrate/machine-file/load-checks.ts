import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { PreflightCheck } from "../driver.ts";
import { parseMachineConfig } from "./config.ts";
import type { DeviceConfig } from "./device-config.ts";

/**
 * Whether this host could load a native machine: its description, the files and sockets that it names.
 *
 * @param listening Paths of the sockets at which somebody listens here.
 * @throws FormatError for a description that is none, or names a device of an unknown type
 */
export function machineLoadChecks(json: unknown, listening: ReadonlySet<string>): PreflightCheck[] {
  const { socket, device } = parseMachineConfig(json, "manifest");
  return [socketCheck(socket, listening), ...device.flatMap((each) => deviceChecks(each, listening))];
}

function socketCheck(path: string, listening: ReadonlySet<string>): PreflightCheck {
  const name = "control socket";
  if (listening.has(path)) {
    return { name, ok: false, detail: `a machine listens at ${path}: stop it, or load with --socket PATH` };
  }
  const check = folderCheck(name, path);
  return check.ok ? check : { ...check, detail: `${check.detail}: load with --socket PATH` };
}

function deviceChecks(device: DeviceConfig, listening: ReadonlySet<string>): PreflightCheck[] {
  const name = `device ${device.name}`;
  if (device.socket !== undefined) return [listenerCheck(name, device.socket, listening)];
  if (device.type === "blk") return [imageCheck(name, device.image ?? "", device.readonly)];
  if (device.type === "console") return consoleChecks(name, device);
  if (device.type === "net") return netChecks(name, device, listening);
  return [{ name, ok: true, detail: "needs nothing of the host" }];
}

function consoleChecks(
  name: string,
  { file, port = [] }: Extract<DeviceConfig, { type: "console" }>,
): PreflightCheck[] {
  const files = [file, ...port.map((each) => each.file)].filter((path) => path !== undefined);
  const made = port.flatMap((each) => [each.socket, each.pty]).filter((path) => path !== undefined);
  return [
    ...files.map((path) => {
      const ok = existsSync(path) ? isAllowed(path, constants.W_OK) : isWritableFolder(dirname(path));
      return { name, ok, detail: ok ? `${path} can be written` : `${path} cannot be written here` };
    }),
    ...made.map((path) => folderCheck(name, path)),
  ];
}

function netChecks(
  name: string,
  device: Extract<DeviceConfig, { type: "net" }>,
  listening: ReadonlySet<string>,
): PreflightCheck[] {
  const { tap, stream, "stream-listen": listens } = device;
  if (stream !== undefined) return [listenerCheck(name, stream, listening)];
  if (listens !== undefined) return [folderCheck(name, listens)];
  const ok = existsSync(`/sys/class/net/${tap}`);
  return [{ name, ok, detail: ok ? `there is ${tap}` : `there is no interface ${tap}: make it first` }];
}

function listenerCheck(name: string, path: string, listening: ReadonlySet<string>): PreflightCheck {
  const ok = listening.has(path);
  const detail = ok ? `somebody listens at ${path}` : `nobody listens at ${path}: start the other side first`;
  return { name, ok, detail };
}

function folderCheck(name: string, path: string): PreflightCheck {
  const ok = isWritableFolder(dirname(path));
  return { name, ok, detail: ok ? path : `${dirname(path)} is no folder to write to` };
}

function imageCheck(name: string, path: string, readOnly: boolean): PreflightCheck {
  const mode = readOnly ? constants.R_OK : constants.R_OK | constants.W_OK;
  if (!existsSync(path)) return { name, ok: false, detail: `${path} is not there: put the image back` };
  const ok = isAllowed(path, mode);
  return {
    name,
    ok,
    detail: ok ? `${path} is there` : `${path} may not be ${readOnly ? "read" : "written"} by this user`,
  };
}

function isWritableFolder(path: string): boolean {
  return existsSync(path) && statSync(path).isDirectory() && isAllowed(path, constants.W_OK);
}

function isAllowed(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}
