import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { MAX_SNAPSHOT_CHAIN } from "../../src/limits.ts";
import type { SnapshotHeader, SnapshotRegion } from "./manifest.ts";

/** What a file says of the one that it is based on: its root names its whole content. */
export interface ParentLink {
  /** Hexadecimal. */
  readonly root: string;
  /** Its header's id, for people. */
  readonly id: string;
  /** How many files stand below this one: 1 for a child of a full snapshot. */
  readonly depth: number;
  /** Its name when this file was written, without a folder. */
  readonly file: string;
}

/** The parts of a snapshot that must fit its child. */
export interface ChainMember {
  readonly root: string;
  readonly header: SnapshotHeader;
  readonly memoryMap: readonly SnapshotRegion[];
  readonly parent: ParentLink | undefined;
}

/** @param file Its name, without a folder. @throws CompatibilityError at the longest chain that is read */
export function linkTo(base: ChainMember, file: string): ParentLink {
  const depth = (base.parent?.depth ?? 0) + 1;
  if (depth > MAX_SNAPSHOT_CHAIN) {
    throw new CompatibilityError(
      `${file} stands on ${depth - 1} others already, the limit is ${MAX_SNAPSHOT_CHAIN}: make a full one of it with \`vhu snapshot flatten\` first`,
    );
  }
  return { root: base.root, id: base.header.id, depth, file };
}

/** @throws CompatibilityError for a base that is of another machine */
export function requireSameMachine(
  base: Pick<ChainMember, "header" | "memoryMap">,
  machineName: string | undefined,
  memoryMap: readonly SnapshotRegion[],
): void {
  if (base.header.machine?.name !== machineName) {
    throw new CompatibilityError(
      `the base is of the machine "${base.header.machine?.name}", this is "${machineName}": save without --base`,
    );
  }
  const shape = (regions: readonly SnapshotRegion[]) =>
    JSON.stringify(regions.map(({ id, guestAddress, sizeBytes }) => [id, guestAddress, sizeBytes]).sort());
  if (shape(base.memoryMap) !== shape(memoryMap)) {
    throw new CompatibilityError("the base has other memory regions than this machine: save without --base");
  }
}

/** @throws FormatError, CompatibilityError for a parent that cannot be this file's */
export function requireParentOf(
  child: ChainMember,
  parent: ChainMember,
  rootsAbove: ReadonlySet<string>,
): void {
  if (rootsAbove.has(parent.root))
    throw new FormatError("a file is its own parent, by way of others", "parent");
  const depth = (parent.parent?.depth ?? 0) + 1;
  if (child.parent?.depth !== depth || depth > MAX_SNAPSHOT_CHAIN) {
    const message = `a chain of ${depth} files, where ${child.parent?.depth} were said (the limit is ${MAX_SNAPSHOT_CHAIN})`;
    throw new FormatError(message, "parent");
  }
  requireSameMachine(parent, child.header.machine?.name, child.memoryMap);
}
