/** The vhost-user back-ends of a VM: who they are. */
export { backendBehind } from "./backend-behind.ts";
export { type BackendRecord, backendRecord } from "./backend-record.ts";
export { type ProcessFacts, processFacts } from "./process-facts.ts";
