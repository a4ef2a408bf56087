import { FormatError } from "../../../src/errors.ts";
import type { StateTree } from "../../decode/mod.ts";
import { readBackendBlob } from "./backend-blob.ts";

/**
 * Takes a vhost-user back-end's state apart, where its format is known.
 *
 * @param deviceType "fs" or "net": QEMU moves the states of no others inside its stream.
 * @returns undefined where it is not
 */
export type BackendStateDecoder = (state: Uint8Array, deviceType: "fs" | "net") => StateTree | undefined;

/** A field that holds a back-end's state in QEMU's pieces: the state's own bytes, decoded where `decode` can. */
export function backendStateTree(
  bytes: Uint8Array,
  note: string,
  decode: BackendStateDecoder | undefined,
  deviceType: "fs" | "net",
): Omit<StateTree, "name"> {
  try {
    const { state, sizeBytes } = readBackendBlob(bytes);
    const children: StateTree[] = [{ name: "back-end state", bytes: state, note: `${state.length} bytes` }];
    const decoded = decodedOrWhy(state, (bytes) => decode?.(bytes, deviceType));
    if (decoded !== undefined) children.push(decoded);
    if (sizeBytes < bytes.length) {
      children.push({ name: "rest", bytes: bytes.subarray(sizeBytes), note: "after the end of the state" });
    }
    return { note, children };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { bytes, note: `${note}: ${error.message}` };
  }
}

function decodedOrWhy(
  state: Uint8Array,
  decode: (state: Uint8Array) => StateTree | undefined,
): StateTree | undefined {
  try {
    return decode(state);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { name: "decoded", note: error.message };
  }
}
