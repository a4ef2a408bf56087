import { readdirSync, readFileSync, statfsSync, statSync } from "node:fs";
import { type Fd, O, openFile, sizeOf } from "../../src/sys/mod.ts";

/** include/uapi/linux/magic.h: memfds and /dev/shm. */
const TMPFS_MAGIC = 0x01021994;
/** address range, permissions, offset, device, inode */
const LINE = /^([0-9a-f]+)-([0-9a-f]+) ..(.)(.) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)/gm;

/**
 * Opens, for reading, the file in memory (a memfd, or one in /dev/shm) that another process has mapped as its range
 * `[address, address + sizeBytes)`: all of the file, from its start, and shared, so that what is read is what the process
 * sees. Undefined where it is no such mapping, or the process is not to be looked into.
 */
export function openMappedFile(pid: number, address: number, sizeBytes: number): Fd | undefined {
  try {
    const file = mappedFile(readFileSync(`/proc/${pid}/maps`, "utf8"), address, sizeBytes);
    return file === undefined ? undefined : openDescriptor(pid, file, sizeBytes);
  } catch {
    // Another user's, or gone; where a maps file can be read, the rest is missing only while it ends.
    return undefined;
  }
}

interface FileIdentity {
  readonly device: bigint;
  readonly inode: bigint;
}

/** The file behind a range, which may have been split into several mappings, e.g. by madvise. */
export function mappedFile(maps: string, address: number, sizeBytes: number): FileIdentity | undefined {
  let position = address;
  let found: FileIdentity | undefined;
  for (const [, from, to, , sharing, offset, major, minor, inode] of maps.matchAll(LINE)) {
    const [start, end] = [hex(from), hex(to)];
    if (end <= position) continue;
    const file = { device: deviceOf(hex(major), hex(minor)), inode: BigInt(inode as string) };
    const isNext = start <= position && hex(offset) + (position - start) === position - address;
    if (!isNext || sharing !== "s" || file.inode === 0n) return undefined;
    found ??= file;
    if (file.device !== found.device || file.inode !== found.inode) return undefined;
    position = end;
    if (position >= address + sizeBytes) return found;
  }
  return undefined;
}

function openDescriptor(pid: number, { device, inode }: FileIdentity, sizeBytes: number): Fd | undefined {
  const folder = `/proc/${pid}/fd`;
  const path = readdirSync(folder)
    .map((name) => `${folder}/${name}`)
    .find((each) => {
      const status = statSync(each, { bigint: true, throwIfNoEntry: false });
      return status?.dev === device && status.ino === inode;
    });
  if (path === undefined || statfsSync(path).type !== TMPFS_MAGIC) return undefined;
  using stack = new DisposableStack();
  const fd = stack.use(openFile(path, O.RDONLY));
  const opened = statSync(`/proc/self/fd/${fd.number}`, { bigint: true });
  // Another file by then.
  if (opened.dev !== device || opened.ino !== inode || sizeOf(fd) !== sizeBytes) return undefined;
  stack.move();
  return fd;
}

/** As stat has it (the kernel's new_encode_dev). */
function deviceOf(major: number, minor: number): bigint {
  return (BigInt(minor) & 0xffn) | (BigInt(major) << 8n) | ((BigInt(minor) & ~0xffn) << 12n);
}

function hex(text: string | undefined): number {
  return Number.parseInt(text as string, 16);
}
