import { StateError } from "../../src/errors.ts";
import { type HostIdentity, hostIdentity } from "../../src/sys/mod.ts";
import type { OperationRecord } from "./operation-record.ts";

/** Where an operation's processes are, or were. Hosts may share a home, and so this log. */
export type OperationPlace = "here" | "another container" | "an earlier boot" | "another host";

export function placeOf(host: HostIdentity, here = hostIdentity()): OperationPlace {
  if (host.bootId === here.bootId)
    return host.pidNamespace === here.pidNamespace ? "here" : "another container";
  // Logs of the first versions do not tell: then nobody shared them.
  const known = [host.machineId, here.machineId].includes(undefined) ? "hostName" : "machineId";
  const isSame = host[known] === undefined || host[known] === here[known];
  return isSame ? "an earlier boot" : "another host";
}

/**
 * Nothing is concluded about what cannot be seen from here: all its processes look as if they had ended, and a machine that runs
 * there would be taken for lost, and started a second time elsewhere. After a boot they have ended, wherever they were.
 *
 * @throws StateError
 */
export function requireSeen({ id, host }: Pick<OperationRecord, "id" | "host">): void {
  const place = placeOf(host);
  if (place === "another container") {
    throw new StateError(
      `${id} is of another container, whose processes are not seen from here: run vhu migrate there`,
    );
  }
  if (place !== "another host") return;
  throw new StateError(
    `${id} is of the host ${host.hostName ?? host.machineId}, whose processes are not seen from here: run vhu migrate there; if that host is gone for good, remove ${id}.log from the log`,
  );
}
