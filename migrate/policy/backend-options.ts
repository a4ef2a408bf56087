/** What the recorded command line of a vhost-user back-end may hold to be run again. What is not here is refused by name. */

/**
 * "path": in an allowed folder. "socket": one that vhu puts where the new machine has it. "word": no path is in it.
 * "own-flag": it weakens the back-end, so only this user's own recording may have it. "dropped": vhu's own business.
 */
export type BackendOption =
  | "flag"
  | "own-flag"
  | "number"
  | "word"
  | "path"
  | "socket"
  | "dropped"
  | "dropped-flag"
  | "ports"
  | readonly string[];

export type BackendOptions = Readonly<Record<string, BackendOption>>;

const options = (kind: BackendOption, names: string): BackendOptions =>
  Object.fromEntries(names.split(" ").map((name) => [`--${name}`, kind]));

/** Of every `vhu device run TYPE`. */
const RUN: BackendOptions = {
  ...options("socket", "socket socket-path connect control"),
  ...options("flag", "untrusted-peer"),
  ...options("own-flag", "no-sandbox"),
  // It is started with --once, so that it ends with its QEMU.
  ...options("dropped-flag", "once json debug"),
  ...options("number", "state-idle-timeout-ms connect-timeout-ms"),
  "--log-level": ["debug", "info", "warn", "error"],
  "--log-format": ["text", "json"],
};

/** By type. The end of a device at an inherited fd cannot be made again. */
export const VHU_DEVICE_OPTIONS: Readonly<Record<string, BackendOptions>> = {
  blk: {
    ...RUN,
    ...options("path", "image blk-file"),
    ...options("flag", "read-only direct"),
    ...options("own-flag", "no-lock"),
    ...options("number", "num-queues workers spin-us"),
    ...options("word", "id"),
    "--io": ["auto", "uring", "sync"],
  },
  console: {
    ...RUN,
    ...options("path", "file pty-link"),
    ...options("socket", "socket-end"),
    ...options("flag", "pty"),
    ...options("word", "size"),
    "--port": "ports",
  },
  net: {
    ...RUN,
    ...options("socket", "stream stream-listen"),
    ...options("word", "tap mac"),
    ...options("number", "queue-pairs mtu max-bytes period"),
  },
  rng: { ...RUN, ...options("number", "max-bytes period") },
};

/** virtiofsd 1.13. Capabilities (--modcaps), inherited fds and the old -o form are not on it. */
export const VIRTIOFSD_OPTIONS: BackendOptions = {
  ...options("socket", "socket-path"),
  ...options("path", "shared-dir"),
  ...options(
    "flag",
    "xattr posix-acl announce-submounts no-announce-submounts readonly writeback allow-direct-io allow-mmap " +
      "killpriv-v2 no-killpriv-v2 security-label no-readdirplus preserve-noatime migration-verify-handles " +
      "migration-confirm-paths",
  ),
  ...options("number", "thread-pool-size rlimit-nofile"),
  ...options("word", "tag socket-group xattrmap translate-uid translate-gid uid-map gid-map"),
  ...options("dropped-flag", "syslog print-capabilities"),
  "--sandbox": ["namespace", "chroot", "none"],
  "--seccomp": ["kill", "log", "trap", "none"],
  "--cache": ["auto", "always", "never", "metadata"],
  "--inode-file-handles": ["never", "prefer", "mandatory"],
  "--migration-mode": ["find-paths", "file-handles"],
  "--migration-on-error": ["abort", "guest-error"],
  "--log-level": ["error", "warn", "info", "debug", "trace", "off"],
};
