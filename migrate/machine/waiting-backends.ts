import type { DeviceConfig, MachineConfig } from "../machine-file/mod.ts";
import { type DeviceBackend, type DevicePrograms, openBackend } from "./device-process.ts";

/**
 * Back-ends that were started before their machine is known, so that their processes are up when it comes. Those that listen
 * already are connected to only then: somebody else may have them until now.
 */
export class WaitingBackends implements Disposable {
  readonly #backends = new Map<string, DeviceBackend>();

  constructor(config: MachineConfig, programs: DevicePrograms) {
    for (const device of config.device) {
      if (device.socket === undefined) this.#backends.set(keyOf(device), openBackend(device, programs));
    }
  }

  /** The one of a device that is just as it was described then; from now on the caller's. */
  take(device: DeviceConfig): DeviceBackend | undefined {
    const backend = this.#backends.get(keyOf(device));
    this.#backends.delete(keyOf(device));
    return backend;
  }

  /** Ends those that nobody took. */
  [Symbol.dispose](): void {
    for (const { socket, process, control } of this.#backends.values()) {
      socket[Symbol.dispose]();
      control?.[Symbol.dispose]();
      process?.kill("SIGTERM");
    }
    this.#backends.clear();
  }
}

/** All of it, whatever the order of its keys: it comes from two parsers. */
function keyOf(device: DeviceConfig): string {
  return JSON.stringify(device, (_key, value: unknown) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
      : value,
  );
}
