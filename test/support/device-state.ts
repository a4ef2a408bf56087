import type { VhostUserDevice } from "../../src/backend/mod.ts";
import { encodeState, StateDecoder, type StateHeader } from "../../src/state/mod.ts";

/** A device's state as the bytes that go through the pipe. */
export function saveDevice(device: VhostUserDevice, header: Partial<StateHeader> = {}): Uint8Array {
  const whole: StateHeader = {
    deviceType: device.deviceType,
    version: device.stateVersion,
    oldestCompatibleVersion: device.oldestCompatibleStateVersion,
    features: 0n,
    ...header,
  };
  return Buffer.concat([...encodeState(whole, device.snapshot())].map((chunk) => Buffer.from(chunk)));
}

/** Restores it as the handler does: nothing shows before `commit`, an error aborts. */
export function loadDevice(device: VhostUserDevice, bytes: Uint8Array): void {
  let restore: ReturnType<VhostUserDevice["beginRestore"]> | undefined;
  const decoder = new StateDecoder({
    header: (header) => {
      restore = device.beginRestore(header);
    },
    value: (name, value) => restore!.value(name, value),
    bytes: (name, chunk) => restore!.bytes(name, chunk),
  });
  try {
    decoder.write(bytes);
    decoder.end();
    restore!.commit();
  } catch (error) {
    restore?.abort();
    throw error;
  }
}
