import { lstatSync, mkdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { StateError } from "../../src/errors.ts";
import {
  ACCESS,
  forbidNewPrivileges,
  keepAcrossExec,
  LandlockRuleset,
  landlockAbi,
  limitResource,
  RLIMIT,
  replaceProcess,
} from "../../src/sys/mod.ts";

/** What a confined program may use of the host, beyond what its own start needs. */
export interface ConfinementNeeds {
  readonly readOnly?: readonly string[];
  readonly readWrite?: readonly string[];
  /** Sockets that it makes, and removes again: it gets these rights, for sockets, to their folders. */
  readonly sockets?: readonly string[];
  /** The same for symbolic links. */
  readonly links?: readonly string[];
  /** Of the parent process, kept open. */
  readonly fds?: readonly number[];
}

export interface Confinement {
  /** 0: the kernel has none, so files are not restricted. */
  readonly landlockAbi: number;
}

/** "PID:ABI", set for the second start only. The pid tells it from a value that was inherited. */
const MARKER = "VHU_CONFINED";
/** 509 memory slots and 256 queues with three fds each are 1277; the rest is for what serves them. */
const MAX_OPEN_FDS = 4096;

const READ = ACCESS.READ_FILE | ACCESS.READ_DIR;
const USE = ACCESS.READ_FILE | ACCESS.WRITE_FILE | ACCESS.TRUNCATE;

/**
 * Gives up what this program does not need: new privileges, core dumps, files (by landlock), TCP, signals to others. Landlock
 * binds the calling thread only, and Bun has others by now: so the program starts itself anew, in the same process.
 * The first call does not return; the second start's call does.
 *
 * @throws StateError when it cannot be done
 */
export function confine(needs: ConfinementNeeds): Confinement {
  const marker = /^(\d+):(\d+)$/.exec(process.env[MARKER] ?? "");
  delete process.env[MARKER];
  if (marker !== null && Number(marker[1]) === process.pid) return { landlockAbi: Number(marker[2]) };
  try {
    const abi = landlockAbi();
    const spool = spoolFolder();
    limitResource(RLIMIT.CORE, 0);
    limitResource(RLIMIT.NOFILE, MAX_OPEN_FDS);
    forbidNewPrivileges();
    if (abi > 0) restrictFiles(abi, needs, spool);
    for (const fd of needs.fds ?? []) keepAcrossExec(fd);
    const argv = [process.execPath, ...process.execArgv, Bun.main, ...process.argv.slice(2)];
    return replaceProcess(process.execPath, argv, {
      ...process.env,
      [MARKER]: `${process.pid}:${abi}`,
      ...(spool === undefined ? {} : { TMPDIR: spool }),
      // Else Bun looks for a cache below $HOME, which is not allowed.
      BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0",
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new StateError(`the device cannot confine itself: ${why}; --no-sandbox runs it without`, { cause });
  }
}

function restrictFiles(abi: number, needs: ConfinementNeeds, spool: string | undefined): void {
  using ruleset = new LandlockRuleset(abi);
  for (const path of [...SYSTEM_FILES, ...programFolders()]) ruleset.allow(path, READ);
  for (const path of [process.execPath, ...dynamicLinkers()]) {
    ruleset.allow(path, ACCESS.READ_FILE | ACCESS.EXECUTE);
  }
  ruleset.allow("/dev/null", USE);
  if (spool !== undefined) ruleset.allow(spool, USE);
  for (const path of needs.readOnly ?? []) ruleset.allow(path, READ);
  for (const path of needs.readWrite ?? []) ruleset.allow(path, USE | ACCESS.IOCTL_DEV);
  for (const path of needs.sockets ?? []) {
    ruleset.allow(dirname(resolve(path)), ACCESS.MAKE_SOCK | ACCESS.REMOVE_FILE);
  }
  for (const path of needs.links ?? []) {
    ruleset.allow(dirname(resolve(path)), ACCESS.MAKE_SYM | ACCESS.REMOVE_FILE);
  }
  ruleset.enforce();
}

/**
 * What Bun and the C library read. Of /proc only this process's part: a root's process could read the memory and
 * environment of others in theirs.
 */
const SYSTEM_FILES = [
  ...["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"],
  ...["/proc/self", "/proc/sys", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/dev/urandom"],
];

/** This package, and the node_modules around it that its libraries are in. */
function programFolders(): string[] {
  const root = resolve(import.meta.dir, "../..");
  const installed = /^.*?\/node_modules(?=\/)/.exec(root)?.[0];
  return installed === undefined ? [root] : [root, installed];
}

/** The interpreter of Bun's ELF file, which is executed, too: /lib64/ld-linux-x86-64.so.2 or its like. */
function dynamicLinkers(): string[] {
  const mapped = readFileSync("/proc/self/maps", "utf8").match(/\/\S+$/gm) ?? [];
  return [...new Set(mapped)].filter((path) => /^ld[-.]/.test(basename(path)));
}

/**
 * A folder of this user's for files without a name, where large device states are staged: the temporary folder itself holds
 * the files of others. Undefined where there is no place for one; such states are then refused when they come.
 */
function spoolFolder(): string | undefined {
  const uid = process.getuid!();
  const path = join(tmpdir(), `vhu-spool-${uid}`);
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") return undefined;
  }
  const found = lstatSync(path);
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o077) !== 0) {
    throw new StateError(`${path} is not a folder of this user's alone; remove it, or set TMPDIR`);
  }
  return path;
}
