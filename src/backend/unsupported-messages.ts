import { CompatibilityError } from "../errors.ts";
import type { Fd } from "../sys/mod.ts";

/** What makes no sense for a back-end on x86_64 and aarch64 that has no GPU and no crypto engine: decoded, and refused. */
export abstract class UnsupportedMessages {
  /** The eventfd that says "the log has changed" is in the spec for completeness; nobody sends it (QEMU never does). */
  setLogFd(fd: Fd): void {
    fd[Symbol.dispose]();
    throw new CompatibilityError("SET_LOG_FD is not supported: read the log itself");
  }

  setVringEndian(_index: number, bigEndian: boolean): void {
    if (bigEndian) throw new CompatibilityError("big-endian rings are not supported");
  }

  createCryptoSession(_description: Uint8Array): Uint8Array {
    throw new CompatibilityError("this device has no crypto engine");
  }

  closeCryptoSession(_id: bigint): void {
    throw new CompatibilityError("this device has no crypto engine");
  }

  gpuSetSocket(fd: Fd): void {
    fd[Symbol.dispose]();
    throw new CompatibilityError("this device is not a GPU");
  }
}
