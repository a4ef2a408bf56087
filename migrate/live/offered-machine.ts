import { FormatError } from "../../src/errors.ts";
import { parseManifest, type SnapshotManifest } from "../snapshot/mod.ts";
import type { Offer } from "./messages.ts";

/**
 * The manifest of a machine whose offer this host's policy has looked at: a native machine is built from what the manifest
 * says, so it must say the same, or whatever was refused in the offer could come after it.
 *
 * @throws FormatError
 */
export function offeredManifest(offer: Pick<Offer, "type" | "machine">, manifest: unknown): SnapshotManifest {
  const parsed = parseManifest(manifest);
  if (offer.type !== "machine" || Bun.deepEquals(parsed.machine, offer.machine)) return parsed;
  throw new FormatError(
    "the machine that came is not the one that was offered and looked at: nothing of it stays here; send it again with a vhu that is unchanged",
    "manifest",
  );
}
