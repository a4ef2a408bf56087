import type { DiskFile } from "./disk-chain.ts";
import { type OptionPair, parseTypedOption } from "./option-list.ts";

/**
 * The files of the disks in QEMU's arguments, as `qemuArguments` builds them, each with what it is read as: of what the sender
 * or a file says about disks, this is what counts.
 */
export function qemuDisks(args: readonly string[]): DiskFile[] {
  const lists = (name: string) =>
    args.flatMap((word, at) => (args[at - 1] === name ? [pairsOf(parseTypedOption(word) ?? [])] : []));
  const nodes = lists("-blockdev");
  const drives = lists("-drive").flatMap((drive) => fileOf(drive.get("file"), drive.get("format")));
  return [
    ...drives,
    ...nodes.flatMap((node) => {
      if (node.has("file.filename")) return fileOf(node.get("file.filename"), node.get("driver"));
      const above = nodes.filter((each) => each.has("file") && each.get("file") === node.get("node-name"));
      const formats = above.length === 0 ? ["raw"] : above.map((each) => each.get("driver"));
      return formats.flatMap((format) => fileOf(node.get("filename"), format));
    }),
  ];
}

/** A qcow2 node that reads anything but a file from its start: nobody could say here what it stands on. */
export function unseenImage(args: readonly string[]): string | undefined {
  const nodes = args.flatMap((word, at) =>
    args[at - 1] === "-blockdev" ? [pairsOf(parseTypedOption(word) ?? [])] : [],
  );
  const unseen = nodes.find((node) => {
    if (node.get("driver") !== "qcow2" || node.has("file.filename")) return false;
    return !nodes.some((below) => below.has("filename") && below.get("node-name") === node.get("file"));
  });
  return unseen && (unseen.get("node-name") ?? unseen.get("file") ?? "qcow2");
}

function pairsOf(pairs: readonly OptionPair[]): ReadonlyMap<string, string> {
  return new Map(pairs.map(({ key, value }) => [key === "" ? "driver" : key, value]));
}

function fileOf(path: string | undefined, format = "raw"): DiskFile[] {
  return path === undefined || path === "" ? [] : [{ path, format }];
}
