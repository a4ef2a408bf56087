import { CompatibilityError } from "../../src/errors.ts";
import type { OwnSnapshots } from "./own-snapshots.ts";

export interface StartPolicy {
  readonly own: OwnSnapshots;
  /** The user said `--trust`. */
  readonly trust: boolean;
  /** The name of the trusted key that signed it; its signature was checked. */
  readonly signer?: string | undefined;
}

/**
 * A snapshot names files and sockets that the machine will use: programs are started for it only if this user wrote it
 * here, or says that it is to be trusted. @throws CompatibilityError
 */
export function requireMayStart(root: string, policy: StartPolicy): void {
  if (policy.trust || policy.signer !== undefined || policy.own.has(root)) return;
  throw new CompatibilityError(
    "this snapshot was not written by you on this host, nor signed by a key that is trusted here, so nothing is started for it; look at it with " +
      "`vhu snapshot inspect`, then load it with --trust, or load it into a machine that waits (machine:PATH)",
    { details: { root } },
    "UNTRUSTED",
  );
}
