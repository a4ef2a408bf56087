/** The vhost-user back-ends of a VM: who they are, and how they are started. */
export { backendBehind } from "./backend-behind.ts";
export { type BackendRecord, backendRecord } from "./backend-record.ts";
export { type ProcessFacts, processFacts } from "./process-facts.ts";
export { identityDifference, ProgramIdentities, type ProgramIdentity } from "./program-identity.ts";
export { recordedImage } from "./recorded-image.ts";
export {
  type BackendCommand,
  isWaiting,
  requireSocketPath,
  type StartBackendsOptions,
  StartedBackends,
} from "./start-backends.ts";
