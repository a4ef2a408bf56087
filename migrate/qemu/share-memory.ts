import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { CompatibilityError } from "../../src/errors.ts";
import { formatOptionList, type OptionPair, parseOptionList } from "../policy/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";

/** A child's first fd after stdin, stdout and stderr. */
const FIRST_FD = 3;
const HUGETLBFS_MAGIC = 0x958458f6;
/** What a backend keeps. Memory that vhu has filled is not allocated, sealed or placed by QEMU any more. */
const KEPT = ["id", "size", "merge", "dump"];
/** Without a backend on the command line, QEMU makes one of the machine's `default_ram_id`. */
const DEFAULT_RAM_IDS = ["pc.ram", "microvm.ram", "mach-virt.ram"];

export interface SharedMemory {
  readonly args: readonly string[];
  /** The regions whose memfds QEMU gets, in the order of their fd numbers, from 3. */
  readonly regions: readonly SnapshotRegion[];
}

/**
 * QEMU's arguments with each memory backend that is a region of the memory map replaced by a file: the memfd that vhu
 * has made and QEMU inherits. What cannot be given so is left as it is, and its pages come in the stream: ROMs, video
 * memory, and backends that QEMU has to make itself (huge pages, memory bound to host nodes).
 */
export function shareMemory(args: readonly string[], memoryMap: readonly SnapshotRegion[]): SharedMemory {
  const regions: SnapshotRegion[] = [];
  const share = (region: SnapshotRegion, pairs: readonly OptionPair[]) => {
    regions.push(region);
    return formatOptionList([
      { key: "", value: "memory-backend-file" },
      ...pairs,
      { key: "mem-path", value: `/proc/self/fd/${FIRST_FD + regions.length - 1}` },
      { key: "share", value: "on" },
    ]);
  };
  const replaced = args.map((word, at) => {
    if (args[at - 1] !== "-object") return word;
    const pairs = parseOptionList(word) ?? [];
    const region = memoryMap.find(({ name }) => isNameOf(name, pairs));
    if (region === undefined || !canBeShared(pairs)) {
      requireNoFd(pairs);
      return word;
    }
    return share(
      region,
      pairs.filter(({ key }) => KEPT.includes(key)),
    );
  });
  const own = memoryMap.find(({ name }) => DEFAULT_RAM_IDS.includes(name));
  if (own === undefined || hasMemoryOfItsOwn(args, own.name)) return { args: replaced, regions };
  const pairs = [
    { key: "id", value: own.name },
    { key: "size", value: `${own.sizeBytes}B` },
  ];
  const added = ["-object", share(own, pairs), "-machine", `memory-backend=${own.name}`];
  return { args: [...replaced, ...added], regions };
}

/** The fd of the QEMU that was: in the new one it is something else, such as its log. @throws CompatibilityError */
function requireNoFd(pairs: readonly OptionPair[]): void {
  const path = pairs.find(({ key }) => key === "mem-path")?.value;
  if (path === undefined || !path.startsWith("/proc/")) return;
  const id = pairs.find(({ key }) => key === "id")?.value ?? "?";
  throw new CompatibilityError(
    `the memory backend ${id} is behind ${path}, and there is no memory for it in what is loaded`,
    {},
    "POLICY",
  );
}

/** A block has the name of its backend, or, in machine types before 4.0, its path. */
function isNameOf(name: string, pairs: readonly OptionPair[]): boolean {
  const id = pairs.find(({ key }) => key === "id")?.value;
  return id !== undefined && (name === id || name === `/objects/${id}`);
}

function canBeShared(pairs: readonly OptionPair[]): boolean {
  const kind = pairs.find(({ key }) => key === "")?.value ?? "";
  if (!/^memory-backend-(?:memfd|ram|file)$/.test(kind)) return false;
  const value = (wanted: string) => pairs.find(({ key }) => key === wanted)?.value;
  if ((value("hugetlb") ?? "off") !== "off" || value("host-nodes") !== undefined) return false;
  if (!["default", undefined].includes(value("policy"))) return false;
  const path = value("mem-path");
  return path === undefined || !isHugePages(path);
}

/** A file of huge pages, by the folder it is or lies in; elsewhere a file is as good as a memfd. */
function isHugePages(path: string): boolean {
  return [path, dirname(path)].some((each) => {
    try {
      return statfsSync(each).type === HUGETLBFS_MAGIC;
    } catch {
      return false;
    }
  });
}

/** Whether the block is one of a backend on the command line, or of options that a backend does not go with. */
function hasMemoryOfItsOwn(args: readonly string[], name: string): boolean {
  return args.some((word, at) => {
    const option = args[at - 1];
    const pairs = parseOptionList(word) ?? [];
    if (option === "-object") return isNameOf(name, pairs);
    if (option === "-machine" || option === "-M") return pairs.some(({ key }) => key === "memory-backend");
    return option === "-numa" && pairs.some(({ key }) => key === "mem" || key === "memdev");
  });
}
