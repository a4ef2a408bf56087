import { FormatError } from "../../src/errors.ts";
import { sniffState } from "../../src/state/mod.ts";
import { decodeCrosvmState } from "./crosvm-state.ts";
import { decodePasstState } from "./passt-state.ts";
import type { StateTree } from "./state-tree.ts";
import { decodeVhuState } from "./vhu-state.ts";
import { decodeVirtiofsdState } from "./virtiofsd-state.ts";

/** The forms that are known, as `--as` takes them. */
const DECODERS = {
  vhu: decodeVhuState,
  virtiofsd: decodeVirtiofsdState,
  passt: decodePasstState,
  crosvm: decodeCrosvmState,
} as const;

export type DeviceStateForm = keyof typeof DECODERS;
export const deviceStateForms: readonly DeviceStateForm[] = ["vhu", "virtiofsd", "passt", "crosvm"];

/** What else is known of the device; it only says which forms without a magic number are tried. */
export interface StateOrigin {
  readonly type?: string | undefined;
  readonly executable?: string | undefined;
}

/** @throws FormatError where the bytes are not of that form */
export function decodeDeviceStateAs(form: DeviceStateForm, bytes: Uint8Array): StateTree {
  return DECODERS[form](bytes);
}

/**
 * A device's state taken apart, if it is of a form that is known: by its magic number, else by what it can be read as from
 * its first to its last byte. Undefined for another.
 *
 * @throws FormatError where the magic number is that of a form, and the rest is not
 */
export function decodeDeviceState(bytes: Uint8Array, origin: StateOrigin = {}): StateTree | undefined {
  const { format } = sniffState(bytes);
  if (format === "vhu-device-state") return decodeVhuState(bytes);
  if (format === "passt") return decodePasstState(bytes);
  // Postcard says nothing of what it holds: any few bytes can be read as it.
  const isFileSystem = origin.type === "fs" || (origin.executable ?? "").includes("virtiofsd");
  const tried: readonly DeviceStateForm[] = isFileSystem ? ["virtiofsd", "crosvm"] : ["crosvm"];
  for (const form of tried) {
    try {
      return DECODERS[form](bytes);
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
    }
  }
  return undefined;
}
