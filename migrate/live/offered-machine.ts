import { FormatError } from "../../src/errors.ts";
import { parseManifest, type SnapshotManifest } from "../snapshot/mod.ts";
import type { Offer } from "./messages.ts";

/** What of a QEMU machine may differ at the end: it has run since, and has written to its disks. */
const MAY_DIFFER =
  /^(?:runState|sections|diskCare|disks\.\d+\.(?:isDirty|inode|fileBytes|modifiedNs)|(?:virtioDevices|backends)\.\d+\.(?:f|protocolF)eatures)(?:$|\.)/;
/** No machine is nested as deep. */
const MAX_DEPTH = 64;

/**
 * The manifest of a machine whose offer this host's policy has looked at: it is built from what the manifest says, so it must
 * say the same, or whatever was refused in the offer could come after it.
 *
 * @throws FormatError that names the first difference
 */
export function offeredManifest(offer: Pick<Offer, "type" | "machine">, manifest: unknown): SnapshotManifest {
  const parsed = parseManifest(manifest);
  const mayDiffer = (path: string) => offer.type === "qemu" && MAY_DIFFER.test(path);
  const different = differenceOf(offer.machine, parsed.machine, "", mayDiffer);
  if (different === undefined) return parsed;
  throw new FormatError(
    `the machine that came is not the one that was offered and looked at (${different || "all of it"} differs): nothing of it stays here; where devices or disks were changed meanwhile, send it again`,
    "manifest",
  );
}

/** The path of the first field in which two values of JSON differ; "" where they differ as a whole. */
function differenceOf(
  one: unknown,
  other: unknown,
  path: string,
  mayDiffer: (path: string) => boolean,
  depth = 0,
): string | undefined {
  if (mayDiffer(path) || Object.is(one, other)) return undefined;
  if (depth > MAX_DEPTH || !isTree(one) || !isTree(other) || Array.isArray(one) !== Array.isArray(other))
    return path;
  for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
    const below = path === "" ? key : `${path}.${key}`;
    const [a, b] = [one, other].map((tree) => (Object.hasOwn(tree, key) ? tree[key] : undefined));
    const found = differenceOf(a, b, below, mayDiffer, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isTree(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
