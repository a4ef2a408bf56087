import { fstatSync } from "node:fs";
import { O } from "./constants.ts";
import { check, Errno, lastErrno, syscallError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";
import { processCalls } from "./process-calls.ts";

/** The same numbers on every architecture (asm-generic). */
const SYS = { createRuleset: 444, addRule: 445, restrictSelf: 446 } as const;

// include/uapi/linux/landlock.h
const CREATE_RULESET_VERSION = 1;
const RULE_PATH_BENEATH = 1;

/** Rights to a file or, for a folder, to everything beneath it. */
export const ACCESS = {
  EXECUTE: 1 << 0,
  WRITE_FILE: 1 << 1,
  READ_FILE: 1 << 2,
  READ_DIR: 1 << 3,
  REMOVE_FILE: 1 << 5,
  MAKE_SOCK: 1 << 9,
  MAKE_SYM: 1 << 12,
  TRUNCATE: 1 << 14,
  IOCTL_DEV: 1 << 15,
} as const;

/** What can be allowed for something that is not a folder. */
const FILE_RIGHTS =
  ACCESS.EXECUTE | ACCESS.WRITE_FILE | ACCESS.READ_FILE | ACCESS.TRUNCATE | ACCESS.IOCTL_DEV;

/** File system rights that each version of the ABI knows, as how many bits from the lowest (landlock(7)). */
const FS_RIGHTS_OF_ABI = [0, 13, 14, 15, 15, 16] as const;
/** From 4 on TCP's bind and connect, from 6 on abstract UNIX sockets and signals of other processes. */
const ABI_WITH_NET = 4;
const ABI_WITH_SCOPES = 6;

/** The version of landlock's ABI in this kernel, 0 where it is not built in or switched off. */
export function landlockAbi(): number {
  return Math.max(0, Number(processCalls.syscall(SYS.createRuleset, 0, 0, CREATE_RULESET_VERSION, 0)));
}

/**
 * Everything that landlock can forbid, less what is allowed: files, TCP, abstract UNIX sockets, signals. What is open
 * already stays usable. Holds for the thread that calls `enforce`, its children, and the program it becomes.
 *
 * @example
 * using ruleset = new LandlockRuleset(landlockAbi());
 * ruleset.allow("/var/lib/disks/a.raw", ACCESS.READ_FILE | ACCESS.WRITE_FILE);
 * ruleset.enforce();
 */
export class LandlockRuleset implements Disposable {
  readonly #fd: Fd;
  readonly #rights: number;

  /** @param abi what `landlockAbi` said, at least 1 */
  constructor(abi: number) {
    const bits = FS_RIGHTS_OF_ABI[Math.min(abi, FS_RIGHTS_OF_ABI.length - 1)]!;
    this.#rights = 2 ** bits - 1;
    // struct landlock_ruleset_attr: u64 handled_access_fs, handled_access_net, scoped.
    const attributes = new NativeBuffer(24);
    attributes.setPointer(0, this.#rights);
    attributes.setPointer(8, abi >= ABI_WITH_NET ? 3 : 0);
    attributes.setPointer(16, abi >= ABI_WITH_SCOPES ? 3 : 0);
    const sizeBytes = abi >= ABI_WITH_SCOPES ? 24 : abi >= ABI_WITH_NET ? 16 : 8;
    const number = processCalls.syscall(SYS.createRuleset, attributes.address, sizeBytes, 0, 0);
    this.#fd = new Fd(check(number, "landlock_create_ruleset", ""), "landlock ruleset");
  }

  /** Allows `rights` to a path, where it exists. Rights that the kernel does not know are not restricted either. */
  allow(path: string, rights: number): void {
    const cPath = NativeBuffer.cString(path);
    const number = libc.open(cPath.address, O.PATH | O.CLOEXEC, 0);
    if (number < 0) {
      if ([Errno.ENOENT, Errno.ENOTDIR].includes(lastErrno())) return;
      throw syscallError("open", path);
    }
    using target = new Fd(number, path);
    const possible = fstatSync(number).isDirectory() ? rights : rights & FILE_RIGHTS;
    // struct landlock_path_beneath_attr, packed: u64 allowed_access, s32 parent_fd.
    const rule = new NativeBuffer(12);
    rule.setPointer(0, possible & this.#rights);
    rule.view.setInt32(8, target.number, true);
    const { number: ruleset } = this.#fd;
    check(
      processCalls.syscall(SYS.addRule, ruleset, RULE_PATH_BENEATH, rule.address, 0),
      "landlock_add_rule",
      path,
    );
  }

  /** From here on. The thread must have `forbidNewPrivileges`, or be root. */
  enforce(): void {
    check(processCalls.syscall(SYS.restrictSelf, this.#fd.number, 0, 0, 0), "landlock_restrict_self", "");
  }

  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}
