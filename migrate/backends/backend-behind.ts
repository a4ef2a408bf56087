import { isAbsolute, resolve } from "node:path";
import { holdersOfSocket, type UnixSocketEntry, unixSockets } from "../../src/sys/mod.ts";
import { type ProcessFacts, processFacts } from "./process-facts.ts";

/**
 * The process at the other end of a VMM's vhost-user socket, found through the kernel's list of sockets: connecting would
 * end a one-shot daemon. Undefined where nobody is connected, or it is another user's.
 *
 * @param path As the VMM has it: the back-end's, or its own where the back-end connects.
 */
export function backendBehind(
  vmm: Pick<ProcessFacts, "pid" | "workingFolder">,
  path: string,
): ProcessFacts | undefined {
  const sockets = unixSockets();
  const wanted = resolve(vmm.workingFolder, path);
  for (const entry of sockets) {
    if (entry.isListening || !isNamed(entry, wanted)) continue;
    const ends = entry.peer === undefined ? [entry.inode] : [entry.inode, entry.peer];
    const found = ends.flatMap(holdersOfSocket).find((pid) => pid !== vmm.pid);
    if (found !== undefined && (entry.peer === undefined || ends.some((inode) => holds(vmm.pid, inode)))) {
      return processFacts(found);
    }
  }
  return undefined;
}

function holds(pid: number, inode: number): boolean {
  return holdersOfSocket(inode).includes(pid);
}

/** A daemon that bound a relative path is in a folder of its own; then the ends of the two names are compared. */
function isNamed({ path }: UnixSocketEntry, wanted: string): boolean {
  if (path === undefined) return false;
  return isAbsolute(path) ? path === wanted : wanted.endsWith(`/${path.replace(/^\.\//, "")}`);
}
