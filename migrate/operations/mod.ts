/** The log of operations, and what to do about those that broke off: docs/operations.md. */
export { assessLoad, OPERATION_VARIABLE, startedProcesses } from "./assess-load.ts";
export { assessSave } from "./assess-save.ts";
export type { Assessment, FoundState, LookAtMachine, RecoveryAction } from "./assessment.ts";
export { cancelOperation } from "./cancel.ts";
export type { OperationFacts, OperationKind, OperationOutcome } from "./entry.ts";
export { Operation, type OperationStart } from "./operation.ts";
export { placeOf, requireSeen } from "./operation-place.ts";
export type { OperationRecord } from "./operation-record.ts";
export { currentOperation, type OperationState } from "./operation-state.ts";
export { type OperationProgress, OperationsLog } from "./operations-log.ts";
export { describeAction, type RecoverOptions, recoverOperation } from "./recover.ts";
