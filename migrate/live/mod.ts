/** Machines that move between hosts while they run: docs/migration-protocol.md. */
export type { ArrivalPolicy } from "./arrival-policy.ts";
export type { CompressSetting } from "./compression-level.ts";
export { assessHandover, type HandoverWord } from "./handover/assess-handover.ts";
export { decodeToken } from "./pairing-token.ts";
export type { ReceiveReport } from "./receive.ts";
export { type ReceiverOptions, runReceiver } from "./receiver.ts";
export type { Certificates, SenderSecurity } from "./security.ts";
export { checkSend, type Preflight, type SendOptions, type SendReport, sendMachine } from "./send.ts";
