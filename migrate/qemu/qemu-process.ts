import { basename } from "node:path";
import { holdersOfSocket, isHolderOfSocket, unixSockets } from "../../src/sys/mod.ts";
import { type ProcessFacts, processFacts } from "../backends/mod.ts";

/** A package's names for it: qemu-system-x86_64, qemu-kvm, kvm; a deleted file (an upgrade) has a suffix. */
const QEMU_NAMES = /^(?:qemu-system-[a-z0-9_]+|qemu-kvm|kvm)(?: \(deleted\))?$/;

/**
 * The QEMU at the other end of a monitor's connection. Who bound the socket may be another: libvirt binds it for QEMU, and
 * a daemonized QEMU has another pid than the one that did. So the kernel is asked who has the other end; what is not QEMU
 * is not taken for it.
 *
 * @param inode of the client's end
 * @param boundBy what SO_PEERCRED says
 */
export function qemuProcess(inode: number, boundBy: number): ProcessFacts | undefined {
  const peer = unixSockets().find((entry) => entry.inode === inode)?.peer;
  // Most times it is who bound it: then nobody else need be looked at.
  if (peer !== undefined && isHolderOfSocket(boundBy, peer)) {
    const facts = processFacts(boundBy);
    if (isQemu(facts)) return facts;
  }
  const candidates = [...(peer === undefined ? [] : holdersOfSocket(peer)), boundBy];
  return candidates.map(processFacts).find(isQemu);
}

function isQemu(facts: ProcessFacts | undefined): facts is ProcessFacts {
  return facts !== undefined && QEMU_NAMES.test(basename(facts.executable));
}
