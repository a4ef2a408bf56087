import { resolve } from "node:path";
import {
  OPERATION_VARIABLE,
  Operation,
  type OperationStart,
  OperationsLog,
} from "../migrate/operations/mod.ts";
import { CancelledError, VhuError } from "../src/errors.ts";
import type { Address } from "./address.ts";

/**
 * Does `work` as an operation of the log, which gets its end, too. What is started meanwhile carries the operation's id in
 * its environment. @throws SyscallError when the log cannot be written, before anything was done
 */
export async function withOperation<Result>(
  start: OperationStart,
  work: (operation: Operation) => Promise<Result>,
): Promise<Result> {
  using operation = Operation.begin(new OperationsLog(), start);
  process.env[OPERATION_VARIABLE] = operation.id;
  try {
    const result = await work(operation);
    operation.end({ result: "done", message: `${start.source} -> ${start.target}` });
    return result;
  } catch (error) {
    // A bug of ours leaves the operation interrupted: what it has left must be looked at.
    if (error instanceof VhuError) {
      const result = error instanceof CancelledError ? "cancelled" : "failed";
      operation.end({ result, message: error.message });
    }
    throw error;
  }
}

/** An address as anybody on this host may read it, from whatever folder. */
export function absoluteAddress(address: Address): string {
  switch (address.kind) {
    case "stdio":
      return "-";
    case "file":
      return resolve(address.path);
    case "tcp":
      return `tcp:${address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`;
    default:
      return `${address.kind}:${resolve(address.path)}`;
  }
}
