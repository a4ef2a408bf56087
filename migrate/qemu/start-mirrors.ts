import { statSync } from "node:fs";
import { CompatibilityError } from "../../src/errors.ts";
import type { PrecopyOptions } from "../driver.ts";
import { DiskMirrors } from "./disk-mirrors.ts";
import type { QemuMachine } from "./qemu-machine.ts";
import { qemuProcess } from "./qemu-process.ts";
import type { QmpClient } from "./qmp-client.ts";

/** Mirrors of the disks that are to be copied; undefined where there are none. @throws CompatibilityError, StateError */
export async function startMirrors(
  client: QmpClient,
  machine: QemuMachine,
  { copyDisks, signal }: Pick<PrecopyOptions, "copyDisks" | "signal">,
): Promise<DiskMirrors | undefined> {
  if (copyDisks === undefined) return undefined;
  const disks = copyDisks.paths.map((path, disk) => {
    const { node, sizeBytes } = machine.disks.find((each) => each.path === path) ?? {};
    if (node !== undefined && sizeBytes !== undefined) return { node, sizeBytes, disk };
    throw new CompatibilityError(`QEMU has no disk ${path} that it could mirror`);
  });
  const pid = qemuProcess(client.socketInode, client.peerPid)?.pid;
  // The socket is QEMU's alone.
  const user = pid === undefined ? undefined : statSync(`/proc/${pid}`);
  return DiskMirrors.start(client, disks, copyDisks.sink, { user, signal });
}
