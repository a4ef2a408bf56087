/**
 * Every error a user of vhu can meet.
 *
 * A message says what happened, to what, and what to do next. `code` is stable and meant for programs,
 * `details` holds the figures of the case, `exitStatus` is what a command ends with.
 * Our own bugs are not here: they are `assert` failures and are never caught.
 */
export type ErrorDetails = Readonly<Record<string, string | number | bigint | boolean | undefined>>;

export interface ErrorOptionsWithDetails {
  readonly cause?: unknown;
  readonly details?: ErrorDetails;
}

/** The root of vhu's errors. Exit status 1 unless a subclass says otherwise. */
export class VhuError extends Error {
  readonly code: string;
  readonly details: ErrorDetails;
  readonly exitStatus: number = 1;

  constructor(code: string, message: string, options: ErrorOptionsWithDetails = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = new.target.name;
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** The command line or an argument of a public function is wrong. Exit status 2. */
export class UsageError extends VhuError {
  override readonly exitStatus = 2;
  constructor(message: string, options?: ErrorOptionsWithDetails) {
    super("USAGE", message, options);
  }
}

/** Bytes that claim to be a snapshot, a device state or a stream are not what they claim. Exit status 3. */
export class FormatError extends VhuError {
  override readonly exitStatus = 3;
  /** Which part of the format was being read, e.g. "header" or "device-state 2". */
  readonly section: string;
  /** Byte offset of the fault from the start of the input, -1 if unknown. */
  readonly offset: number;
  constructor(message: string, section: string, offset = -1, options: ErrorOptionsWithDetails = {}) {
    const place = offset < 0 ? section : `${section}, offset ${offset}`;
    super("FORMAT", `${message} (${place})`, {
      ...options,
      details: { section, offset, ...options.details },
    });
    this.section = section;
    this.offset = offset;
  }
}

/** The parts are each well-formed but do not fit together. Exit status 4. */
export class CompatibilityError extends VhuError {
  override readonly exitStatus: number = 4;
  constructor(message: string, options?: ErrorOptionsWithDetails, code = "COMPATIBILITY") {
    super(code, message, options);
  }
}

/** Front-end and back-end cannot agree on features. Exit status 4. */
export class NegotiationError extends CompatibilityError {
  constructor(message: string, options?: ErrorOptionsWithDetails) {
    super(message, options, "NEGOTIATION");
  }
}

export interface PeerErrorOptions extends ErrorOptionsWithDetails {
  /** True where connecting again can help (the peer died, stalled or was cut off). */
  readonly reconnect?: boolean;
}

/** The other side died, stalled, hung up or answered with a failure. Exit status 5. */
export class PeerError extends VhuError {
  override readonly exitStatus = 5;
  readonly reconnect: boolean;
  constructor(message: string, options: PeerErrorOptions = {}) {
    super("PEER", message, options);
    this.reconnect = options.reconnect ?? false;
  }
}

/** A system call failed. */
export class SyscallError extends VhuError {
  /** The call's name, e.g. "sendmsg". */
  readonly call: string;
  /** The errno's name, e.g. "EAGAIN". */
  readonly errno: string;
  constructor(call: string, errno: string, what: string, details: ErrorDetails = {}) {
    super("SYSCALL", `${call} failed: ${errno}${what === "" ? "" : ` (${what})`}`, {
      details: { call, errno, ...details },
    });
    this.call = call;
    this.errno = errno;
  }
}

/** A vhost-user message breaks the protocol. */
export class ProtocolError extends VhuError {
  /** The message's name, e.g. "SET_VRING_ADDR", or its number where it has none. */
  readonly request: string;
  /** The path of the field, e.g. "regions[2].size", or "" for the message as a whole. */
  readonly path: string;
  constructor(message: string, request: string, path = "", options: ErrorOptionsWithDetails = {}) {
    super("PROTOCOL", `${request}${path === "" ? "" : `.${path}`}: ${message}`, {
      ...options,
      details: { request, path, ...options.details },
    });
    this.request = request;
    this.path = path;
  }
}

/** The operation is legal but not in this state (e.g. a LOAD while a ring runs). */
export class StateError extends VhuError {
  constructor(message: string, options?: ErrorOptionsWithDetails) {
    super("STATE", message, options);
  }
}

/** The user or a deadline cancelled the operation; nothing was left half done. Exit status 128 + signal. */
export class CancelledError extends VhuError {
  override readonly exitStatus: number;
  constructor(message: string, signalNumber = 2) {
    super("CANCELLED", message, { details: { signalNumber } });
    this.exitStatus = 128 + signalNumber;
  }
}
