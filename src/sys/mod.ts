/** Linux, by bun:ffi: owned fds and mappings, sockets with fds, pipes, eventfds, epoll, files. x86_64 and aarch64. */

export { isSameMemory } from "./compare-memory.ts";
export { F, FALLOC, O, POLL, SEAL, SEEK } from "./constants.ts";
export { cloneFile, copyRange } from "./copy-file.ts";
export { Deadline } from "./deadline.ts";
export { Epoll } from "./epoll.ts";
export { check, Errno, errnoName, lastErrno, retrying, syscallError } from "./errno.ts";
export { createEventFd, drainEvent, signalEvent } from "./event-fd.ts";
export { EventLoop, type ReadyHandler } from "./event-loop.ts";
export { disposeAll, Fd } from "./fd.ts";
export {
  allocateRange,
  dataRanges,
  openFile,
  openTemporaryFile,
  punchHole,
  readAt,
  readCachedAt,
  readSome,
  setNonBlocking,
  sizeOf,
  syncData,
  syncFile,
  truncateFile,
  writeAt,
  writeSome,
} from "./file.ts";
export { hasNoLock, lockBytes } from "./file-lock.ts";
export { IoUring, type IoUringOptions } from "./io-uring.ts";
export { ioUringObstacle } from "./io-uring-setup.ts";
export { IoVector } from "./io-vector.ts";
export { ACCESS, LandlockRuleset, landlockAbi } from "./landlock.ts";
export { libc } from "./libc.ts";
export { linkFile } from "./link-file.ts";
export { Mapping, type MappingOptions } from "./mapping.ts";
export { createMemfd, isSealedAgainstShrinking } from "./memfd.ts";
export { addressOf, NativeBuffer } from "./native-buffer.ts";
export { type Moved, PeerStream } from "./peer-stream.ts";
export { createPipe, growPipe, type PipeEnds, spliceSome } from "./pipe.ts";
export { eventLoopTurn, pollNow, waitReady, waitReadySync } from "./poll.ts";
export {
  executableOf,
  forbidNewPrivileges,
  hasSeccomp,
  keepAcrossExec,
  limitResource,
  RLIMIT,
  replaceProcess,
  yieldProcessor,
} from "./process.ts";
export {
  type HostIdentity,
  hostIdentity,
  identityOf,
  isRunning,
  type ProcessIdentity,
  processesWithVariable,
  signalProcess,
  startTicksOf,
} from "./process-identity.ts";
export { openPty, type Pty, terminalSize } from "./pty.ts";
export { fillRandom } from "./random.ts";
export { sendVector } from "./send-vector.ts";
export { TAP_WOULD_BLOCK, Tap, TUN_F } from "./tap.ts";
export { connectUnix, setBufferSizes, UnixListener } from "./unix-address.ts";
export { UnixDatagram } from "./unix-datagram.ts";
export { UnixSocket, WOULD_BLOCK } from "./unix-socket.ts";
export {
  holdersOfSocket,
  isHolderOfSocket,
  listeningPaths,
  socketsAt,
  type UnixSocketEntry,
  unixSockets,
} from "./unix-sockets.ts";
export { createUserfaultfd, registerMissingFaults } from "./userfaultfd.ts";
