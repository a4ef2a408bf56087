import type { LockedSnapshot } from "../../migrate/snapshot/mod.ts";
import { describeKeys } from "../../migrate/snapshot/mod.ts";
import { formatBytes } from "../output/format.ts";
import { printable } from "../output/printable.ts";

/** What `vhu snapshot inspect` shows of an encrypted file without its key. */
export function lockedPage(file: string, { keys, sizeBytes }: LockedSnapshot): string[] {
  return [
    `${file}: an encrypted snapshot, ${formatBytes(sizeBytes)}`,
    `cipher     AES-256-GCM`,
    `opens for  ${describeKeys(keys)}`,
    "All else is encrypted: give --identity FILE or --passphrase-file FILE.",
  ].map(printable);
}
