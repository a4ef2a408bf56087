/** What may run. One policy for everything that starts programs for a file or a peer. */
export { requireAllowedFile } from "./allowed-path.ts";
export {
  type BackendArgumentPolicy,
  type BackendArguments,
  type BackendRole,
  backendArguments,
  recordedRole,
} from "./backend-arguments.ts";
export { type DiskFile, requireAllowedChain } from "./disk-chain.ts";
export { LocalPrograms } from "./local-programs.ts";
export { requireMayStart, type StartPolicy } from "./may-start.ts";
export { formatOptionList, type OptionPair, parseOptionList, parseTypedOption } from "./option-list.ts";
export { requireOwn } from "./own-file.ts";
export { OwnSnapshots } from "./own-snapshots.ts";
export { type QemuArgumentPolicy, qemuArguments } from "./qemu-arguments.ts";
export { qemuDisks } from "./qemu-disks.ts";
export { qemuMemoryBytes } from "./qemu-memory.ts";
export { deviceKeys, objectKeys } from "./qemu-options.ts";
export { isPlacedBelow } from "./real-place.ts";
export { stateFolder } from "./state-folder.ts";
export { storageDaemonDisks } from "./storage-daemon-arguments.ts";
export { TrustedKeys } from "./trusted-keys.ts";
