/** What a writer must know of versions before the newest: readers have upgrades.ts. */
import { CompatibilityError } from "../../src/errors.ts";
import { type FullHeader, SNAPSHOT_VERSION } from "./header.ts";
import type { MemoryWriterOptions } from "./memory-writer.ts";

/** Version 0 has no `skip`, so each extent has a frame of its own; and shorter records. */
export const VERSION_0_MEMORY: MemoryWriterOptions = { hasSharedFrames: false, maxBatchExtents: 64 };

/** What a file is to be, beside its content. */
export interface WrittenKind {
  readonly isIncremental: boolean;
  readonly isEncrypted: boolean;
}

/** @throws CompatibilityError that says what a version has no room for */
export function requireWritable(formatVersion: number, { isIncremental, isEncrypted }: WrittenKind): void {
  if (formatVersion === SNAPSHOT_VERSION) return;
  const what = isEncrypted ? "encrypted files" : isIncremental ? "files that are based on others" : undefined;
  if (formatVersion === 0 && what === undefined) return;
  throw new CompatibilityError(
    formatVersion === 0
      ? `version 0 of the format has no ${what}: write version ${SNAPSHOT_VERSION}`
      : `version ${formatVersion} of the format is not written, only 0 and ${SNAPSHOT_VERSION}`,
  );
}

/** A header as a version has it: in version 0, nobody noted the CPU. */
export function headerIn(formatVersion: number, header: FullHeader): FullHeader {
  if (formatVersion > 0) return header;
  const { cpu: _, ...host } = header.host;
  return { ...header, host: host as FullHeader["host"] };
}
