/** What may run. One policy for everything that starts programs for a file or a peer. */
export { requireMayStart, type StartPolicy } from "./may-start.ts";
export { formatOptionList, type OptionPair, parseOptionList } from "./option-list.ts";
export { OwnSnapshots } from "./own-snapshots.ts";
export { type QemuArgumentPolicy, qemuArguments } from "./qemu-arguments.ts";
export { TrustedKeys } from "./trusted-keys.ts";
