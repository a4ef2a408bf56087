import { CompatibilityError } from "../src/errors.ts";

/** A machine changes its memory, or disks that are copied with it, faster than it can be copied; it runs on. Exit status 4, code NOT_CONVERGING. */
export class NotConvergingError extends CompatibilityError {
  constructor(details: {
    readonly passes: number;
    readonly remainingBytes: number;
    readonly dirtyBytesPerSecond?: number | undefined;
    /** Of the rest, what is on disks. */
    readonly diskBytes?: number | undefined;
  }) {
    const { diskBytes = 0, remainingBytes } = details;
    const isDisk = diskBytes > remainingBytes / 2;
    const rate = isDisk ? undefined : details.dirtyBytesPerSecond;
    const speed = rate === undefined ? "" : `, at ${Math.round(rate / 1e6)} MB/s`;
    super(
      `the machine changes its ${isDisk ? "disks" : "memory"} faster than it can be copied${speed}: after ${details.passes} passes ` +
        `${Math.round(details.remainingBytes / 1e6)} MB were still to be brought; it runs on. ` +
        "Throttle it, allow a longer downtime or more bandwidth, or copy it while it stands still",
      { details },
      "NOT_CONVERGING",
    );
  }
}
