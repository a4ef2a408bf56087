import { VhuError } from "../../errors.ts";
import type { LogDetails, Logger } from "../../logger.ts";
import type { SharedDirtyLog, SharedRegion } from "../../memory/mod.ts";
import type { RingLayout, SharedInflight } from "../../vring/mod.ts";

/** What a Worker is born with. */
export interface WorkerSetup {
  /** One word: how many orders were posted. */
  readonly posted: SharedArrayBuffer;
  /** fds that the Worker then owns: written by the control thread for an order, by the Worker for a report. */
  readonly orderFd: number;
  readonly reportFd: number;
  readonly program: string;
  readonly spinUs: number;
}

export interface StartOrder {
  readonly kind: "start";
  readonly index: number;
  readonly layout: RingLayout;
  readonly inflight: SharedInflight | undefined;
  /** fds that the Worker then owns. Without a kick the ring is looked at again and again. */
  readonly kickFd: number | undefined;
  readonly callFd: number | undefined;
  readonly enabled: boolean;
  readonly parameters: unknown;
}

/** Control thread to Worker. Each is answered, in order, by a "done" or a "failed". */
export type Order =
  | StartOrder
  | {
      readonly kind: "memory";
      readonly regions: readonly SharedRegion[];
      readonly dirtyLog: SharedDirtyLog | undefined;
    }
  | { readonly kind: "logging"; readonly isOn: boolean }
  | { readonly kind: "call"; readonly index: number; readonly callFd: number | undefined }
  | { readonly kind: "enable"; readonly index: number; readonly enabled: boolean }
  | { readonly kind: "fail"; readonly index: number }
  | { readonly kind: "stop"; readonly index: number; readonly drainMs: number | undefined }
  | { readonly kind: "exit" };

/** An error on its way between threads. */
export interface Fault {
  readonly code: string;
  readonly message: string;
  readonly details: VhuError["details"];
}

export type LogLevel = keyof Logger;

/** Worker to control thread. */
export type Report =
  | { readonly kind: "done"; readonly value: number }
  | { readonly kind: "failed"; readonly fault: Fault }
  /** The ring is out of service until it is stopped. */
  | { readonly kind: "broken"; readonly index: number; readonly fault: Fault }
  | {
      readonly kind: "log";
      readonly level: LogLevel;
      readonly message: string;
      readonly details: LogDetails | undefined;
    }
  /** The Worker ended on a bug of ours. */
  | { readonly kind: "bug"; readonly stack: string };

export function faultOf({ code, message, details }: VhuError): Fault {
  return { code, message, details };
}

export function errorOf({ code, message, details }: Fault): VhuError {
  return new VhuError(code, message, { details });
}
