import { SYS } from "./constants.ts";
import { retrying } from "./errno.ts";
import { libc } from "./libc.ts";

/** What one getrandom(2) gives at most (getrandom(2), "NOTES"). */
const MAX_CALL_BYTES = 0x1ff_ffff;

/**
 * Fills memory of this process with bytes of the kernel's generator (getrandom(2), no flags).
 * @throws SyscallError
 */
export function fillRandom(address: number, sizeBytes: number): void {
  let done = 0;
  // More than 256 bytes may come in parts when a signal arrives.
  while (done < sizeBytes) {
    const count = Math.min(sizeBytes - done, MAX_CALL_BYTES);
    done += retrying("getrandom", "", () => libc.syscall(SYS.getrandom, address + done, count, 0));
  }
}
