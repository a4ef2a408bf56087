import { VhuError } from "../../src/errors.ts";
import { LocalPrograms, qemuDisks } from "../policy/mod.ts";
import { loadPlan } from "./load-plan.ts";

/** The files that a QEMU which is started for this machine opens as disks; none where its command line is not one that runs. */
export function qemuDiskPaths(json: unknown): string[] {
  const nowhere = { roots: ["/"], programs: new LocalPrograms([]), program: "qemu", socketPath: "/" };
  try {
    const { qemu } = loadPlan(json, { ...nowhere, withoutBackends: true });
    return qemuDisks(qemu.args).map(({ path }) => path);
  } catch (error) {
    if (error instanceof VhuError) return [];
    throw error;
  }
}
