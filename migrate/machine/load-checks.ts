import { accessSync, constants, existsSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { PreflightCheck } from "../driver.ts";
import { type DeviceConfig, parseMachineConfig } from "./config.ts";

/**
 * Whether this host could load a native machine: its description, the files and sockets that it names.
 *
 * @param listening Paths of the sockets at which somebody listens here.
 * @throws FormatError for a description that is none, or names a device of an unknown type
 */
export function machineLoadChecks(json: unknown, listening: ReadonlySet<string>): PreflightCheck[] {
  const { socket, device } = parseMachineConfig(json, "manifest");
  return [socketCheck(socket, listening), ...device.map((each) => deviceCheck(each, listening))];
}

function socketCheck(path: string, listening: ReadonlySet<string>): PreflightCheck {
  const name = "control socket";
  const folder = dirname(path);
  if (listening.has(path)) {
    return { name, ok: false, detail: `a machine listens at ${path}: stop it, or load with --socket PATH` };
  }
  if (isWritableFolder(folder)) return { name, ok: true, detail: path };
  return { name, ok: false, detail: `${folder} is no folder to write to: load with --socket PATH` };
}

function deviceCheck(device: DeviceConfig, listening: ReadonlySet<string>): PreflightCheck {
  const name = `device ${device.name}`;
  if (device.socket !== undefined) {
    const ok = listening.has(device.socket);
    const detail = ok
      ? `somebody listens at ${device.socket}`
      : `nobody listens at ${device.socket}: start the back-end first`;
    return { name, ok, detail };
  }
  if (device.type === "blk") return imageCheck(name, device.image ?? "", device.readonly);
  const file = device.type === "console" ? (device.file ?? "") : "";
  const ok = existsSync(file) ? isAllowed(file, constants.W_OK) : isWritableFolder(dirname(file));
  return { name, ok, detail: ok ? `${file} can be written` : `${file} cannot be written here` };
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
