import { identityDifference, ProgramIdentities } from "../../migrate/backends/mod.ts";
import type { LocalPrograms } from "../../migrate/policy/mod.ts";
import type { LoadPlan, QemuMachine } from "../../migrate/qemu/mod.ts";

/** Where a back-end is another program than the one that gave its state: it may refuse that state, or read it otherwise. */
export async function programNotes(
  { backends = [] }: Pick<QemuMachine, "backends">,
  plan: LoadPlan,
  programs: LocalPrograms,
): Promise<string[]> {
  const identities = new ProgramIdentities(programs);
  const notes = backends.map(async (record) => {
    const { chardev, type, socket } = record;
    const started = plan.backends.find(
      (each) => each.chardev === chardev || each.others?.some((other) => other.chardev === chardev),
    );
    const here =
      started === undefined ? await identities.ofListener(socket) : await identities.ofRole(started.role);
    const difference = identityDifference(record, here);
    return difference === undefined
      ? []
      : [`the ${type} back-end of ${chardev} is another one: ${difference}`];
  });
  return (await Promise.all(notes)).flat();
}
