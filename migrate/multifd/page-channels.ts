import type { UnixSocket } from "../../src/sys/mod.ts";

/** Takes memory that comes through multifd channels, instead of `writeMemory`: whoever packs it reads it, in threads of its own. */
export interface PageChannels {
  readonly count: number;
  /** Of pages that have come, of all passes. */
  readonly doneBytes: number;
  /** Aborted with what a channel failed with. */
  readonly signal: AbortSignal;
  /** Takes the sockets over, which block. After `writeMemoryMap`; the blocks are the regions by their names. */
  begin(sockets: readonly UnixSocket[]): void;
  /** Until all channels have come to so many points at which QEMU has synchronised them, and what came before is on its way. */
  synchronised(count: number): Promise<void>;
}
