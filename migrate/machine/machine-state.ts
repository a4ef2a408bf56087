import { z } from "zod";
import { FormatError } from "../../src/errors.ts";
import { decodeState, encodeState } from "../../src/state/mod.ts";

/** Version of what a machine knows of itself beside its memory and its devices. */
const MACHINE_STATE_VERSION = 1;
const MACHINE_STATE_TYPE = "vhu-machine";

const ring = z.strictObject({
  packed: z.boolean(),
  size: z.number().int(),
  availableIndex: z.number().int(),
  usedIndex: z.number().int(),
  free: z.array(z.number().int()).max(32768),
  outstanding: z
    .array(
      z.strictObject({
        id: z.number().int(),
        descriptors: z.array(z.number().int()).max(32768),
        token: z.number().int().min(0),
      }),
    )
    .max(32768),
});
const queue = z.strictObject({ base: z.number().int().min(0).max(0xffffffff), ring });
const device = z.strictObject({
  name: z.string(),
  features: z.bigint().or(z.number().int().transform(BigInt)),
  queues: z.array(queue).max(256),
});
const machineState = z.strictObject({
  devices: z.array(device).max(64),
  workloads: z.array(z.unknown()).max(64),
});

export type MachineState = z.infer<typeof machineState>;

/** The state as the framed, checksummed bytes that go into a snapshot's machineState record. */
export function encodeMachineState(state: MachineState): Uint8Array {
  const header = {
    deviceType: MACHINE_STATE_TYPE,
    version: MACHINE_STATE_VERSION,
    oldestCompatibleVersion: MACHINE_STATE_VERSION,
    features: 0n,
  };
  const pieces = [...encodeState(header, [{ name: "machine", value: state }])].map((piece) => piece.slice());
  return Buffer.concat(pieces);
}

/** @throws FormatError when the bytes are not a machine's state, or one of a newer version */
export function decodeMachineState(bytes: Uint8Array): MachineState {
  const { header, sections } = decodeState(bytes, bytes.length);
  if (header.deviceType !== MACHINE_STATE_TYPE || header.oldestCompatibleVersion > MACHINE_STATE_VERSION) {
    throw new FormatError(`a state of ${header.deviceType} version ${header.version}`, "machine state", 0);
  }
  const result = machineState.safeParse(sections.get("machine"));
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new FormatError(`${issue?.path.join(".")}: ${issue?.message}`, "machine state");
}
