import { SyscallError, UsageError } from "../../src/errors.ts";
import { createMemfd, type Fd, Mapping, sizeOf } from "../../src/sys/mod.ts";

/** 64 MiB, as in a snapshot's machineState record. */
const MAX_STATE_BYTES = 64 << 20;

/** A machine's state in a memfd, which is how it goes through a control socket. */
export function stateFd(bytes: Uint8Array): Fd {
  if (bytes.length === 0) throw new UsageError("the machine state is empty");
  const fd = createMemfd("machine state", bytes.length);
  using mapping = Mapping.ofFd(fd, { sizeBytes: bytes.length });
  new Uint8Array(mapping.window(0, bytes.length)).set(bytes);
  return fd;
}

/** What `stateFd` put into an fd, which stays the caller's. @throws UsageError for what cannot be a state */
export function stateBytes(fd: Fd): Uint8Array {
  const sizeBytes = sizeOf(fd);
  if (sizeBytes === 0 || sizeBytes > MAX_STATE_BYTES)
    throw new UsageError(`a machine state has 1 to ${MAX_STATE_BYTES} bytes, not ${sizeBytes}`);
  try {
    using mapping = Mapping.ofFd(fd, { sizeBytes, readOnly: true });
    return new Uint8Array(mapping.window(0, sizeBytes)).slice();
  } catch (error) {
    if (error instanceof SyscallError)
      throw new UsageError(`the machine state cannot be mapped: ${error.message}`);
    throw error;
  }
}
