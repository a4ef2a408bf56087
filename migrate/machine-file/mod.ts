/** The description of a native machine (docs/machine-file.md): what it says, and whether this host could do it. */
export { type MachineConfig, parseMachineConfig, readMachineFile } from "./config.ts";
export { type ConsolePortConfig, type DeviceConfig, pathsOf } from "./device-config.ts";
export { machineLoadChecks } from "./load-checks.ts";
export type { WorkloadConfig } from "./workload-config.ts";
