import type { ProcessIdentity } from "../../src/sys/mod.ts";
import type { OperationFacts } from "./entry.ts";

/** What recovery does, in this order. Plain data: nothing is done before somebody asks for it. */
export type RecoveryAction =
  /** Ends a process that the operation started, or a machine that has given itself up. */
  | { readonly do: "end-process"; readonly process: ProcessIdentity; readonly role: string }
  /** Writes into the log what the actions after it rest on. */
  | { readonly do: "record"; readonly phase: string; readonly facts: OperationFacts }
  /** Removes what a killed writer left beside this file. */
  | { readonly do: "remove-leftovers"; readonly path: string }
  /** Removes a socket file that nobody listens at. */
  | { readonly do: "remove-socket"; readonly path: string }
  /** Removes an image that was made for a machine which never ran on it, if it is this very file. */
  | { readonly do: "remove-image"; readonly path: string; readonly device: string; readonly inode: string }
  /** Ends what copied the disks of the machine at this address. */
  | { readonly do: "drop-disk-copies"; readonly address: string }
  /** Brings the machine at this address back: it runs again, unless told otherwise. */
  | { readonly do: "resume-machine"; readonly address: string; readonly to?: "running" | "suspended" }
  /** What was written to the overlays of a save goes back into the disks' files, and the overlays go away. */
  | {
      readonly do: "take-back-overlays";
      readonly address: string;
      readonly overlays: NonNullable<OperationFacts["overlays"]>;
    };

/** What an interrupted operation has left, and what to do about it. */
export interface Assessment {
  /** The state of the world and how to go on, in one line. */
  readonly line: string;
  readonly actions: readonly RecoveryAction[];
  /** What the log says once the actions are done. */
  readonly afterwards: string;
  /** It stays interrupted after the actions: something on another host is missing. */
  readonly staysOpen?: boolean | undefined;
}

/**
 * "held": it stands still, and does not go on by itself. "gone": nobody is at the address. "unknown": somebody may be, but does
 * not answer.
 */
export type FoundState = "running" | "suspended" | "held" | "gone" | "unknown";

/** Asks a machine at an address how it is, briefly and without touching it. */
export type LookAtMachine = (address: string) => Promise<FoundState>;
