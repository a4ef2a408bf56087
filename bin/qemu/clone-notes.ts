import type { QemuMachine } from "../../migrate/qemu/mod.ts";

/** What is the same in every VM that is loaded from one snapshot, for somebody who loads a second one. */
export function cloneNotes(
  { commandLine = [], backends = [] }: QemuMachine,
  { overlay }: { readonly overlay?: string | undefined },
): string[] {
  if (overlay === undefined) return [];
  const addresses = commandLine.flatMap((word) => /(?:^|,)mac=([0-9a-fA-F:]{17})/.exec(word)?.[1] ?? []);
  const isNetworked = commandLine.some((word) => word === "-netdev" || word === "-nic" || word === "-net");
  const hasGeneration = commandLine.some((word) => word.startsWith("vmgenid"));
  const shared = backends.filter(({ type }) => type === "fs").map(({ chardev }) => chardev);
  return [
    ...(isNetworked
      ? [
          `the guest keeps its MAC and IP addresses${addresses.length === 0 ? "" : ` (${addresses.join(", ")})`}: keep it off the first one's network, or change them inside`,
        ]
      : []),
    hasGeneration
      ? "the guest is told by its vmgenid that it is another generation"
      : "the guest has no vmgenid: its host keys, machine id and random numbers are those of the first one",
    ...shared.map(
      (chardev) =>
        `the folder behind ${chardev} is shared with whoever uses it: --set ${chardev}.shared-dir=FOLDER`,
    ),
  ];
}
