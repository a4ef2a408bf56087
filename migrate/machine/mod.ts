/** A native machine: described by a TOML file, driven by workloads, controlled through a socket. */

export { BLOCK_BYTES, type BlockContent, readBlock } from "./block-content.ts";
export { ControlClient } from "./control-client.ts";
export { type MachineStatus, machineStatus, verifyReport } from "./control-protocol.ts";
export { ControlServer } from "./control-server.ts";
export type { DevicePrograms } from "./device-process.ts";
export { Machine, type MachineOptions, type RunState } from "./machine.ts";
export { MachineDriver } from "./machine-driver.ts";
export { MachineHost } from "./machine-host.ts";
export { MachineProcess } from "./machine-process.ts";
export type { VerifyReport } from "./workload.ts";
