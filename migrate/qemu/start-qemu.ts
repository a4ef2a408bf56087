import type { Fd } from "../../src/sys/mod.ts";
import type { MachineOutline } from "../driver.ts";
import type { GuestMemory } from "../ram/mod.ts";
import type { QemuCommand } from "./qemu-command.ts";
import { QemuLaunch } from "./qemu-launch.ts";
import { shareMemory } from "./share-memory.ts";

/**
 * Starts the QEMU of an outline at once, over memory that may still be filled: it gets the memfds of the regions that
 * are memory backends. It waits (-S, -incoming defer) until its driver has loaded the rest, and runs at `resume`.
 *
 * @example
 * using memory = GuestMemory.create(outline.memoryMap);
 * using launch = startQemu(outline, memory, qemuCommand(outline.machine, { roots }));
 * using driver = await launch.connect();
 * await driver.prepareIncoming(outline);
 * // memory is filled
 * await driver.prepareLoad(sourceWithMemory(source, memory));
 *
 * @throws UsageError when another process listens where the monitor will be
 */
export function startQemu(
  { memoryMap }: Pick<MachineOutline, "memoryMap">,
  memory: GuestMemory,
  { program, args, socketPath }: QemuCommand,
  lifeLines: readonly Fd[] = [],
): QemuLaunch {
  const shared = shareMemory(args, memoryMap);
  return QemuLaunch.start(program, shared.args, socketPath, {
    fds: shared.regions.map(({ id }) => memory.fd(id)),
    sharedBlocks: new Set(shared.regions.map(({ name }) => name)),
    lifeLines,
  });
}
