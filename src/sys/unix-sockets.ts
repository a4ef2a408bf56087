import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { SyscallError } from "../errors.ts";
import { SOCK } from "./constants.ts";
import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { libc } from "./libc.ts";
import { NativeBuffer } from "./native-buffer.ts";

/** A UNIX socket of this network namespace, as the kernel lists it. */
export interface UnixSocketEntry {
  readonly inode: number;
  /** The name that it was bound to; a connection that was accepted has its listener's. As its process gave it. */
  readonly path: string | undefined;
  readonly isListening: boolean;
  /** The inode of the other end; undefined where there is none, or the kernel does not tell (no unix_diag). */
  readonly peer: number | undefined;
  /** The file that it was bound to, whatever its name was relative to: the low 32 bits of its inode, and the kernel's number of its device. */
  readonly file?: { readonly inode: number; readonly device: number } | undefined;
}

// include/uapi/linux/netlink.h, sock_diag.h, unix_diag.h
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 0x1;
const NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSG_HEADER_BYTES = 16;
const REQUEST_BYTES = 24;
const DIAG_MESSAGE_BYTES = 16;
const SHOW_NAME_FILE_AND_PEER = 0x1 | 0x2 | 0x4;
const ATTRIBUTE = { NAME: 0, VFS: 1, PEER: 2 } as const;
const TCP_LISTEN = 10;
const ALL_STATES = 0xffff_ffff;
const RECEIVE_BYTES = 256 * 1024;

/** Where somebody listens, as the paths were given to bind. Nobody is connected to. */
export function listeningPaths(): ReadonlySet<string> {
  return new Set(
    unixSockets().flatMap(({ isListening, path }) => (isListening && path !== undefined ? [path] : [])),
  );
}

/** The sockets that are bound to this file, under whatever name: its listener, and the connections that it has accepted. */
export function socketsAt(path: string): UnixSocketEntry[] {
  const facts = statSync(path, { throwIfNoEntry: false, bigint: true });
  const inode = facts === undefined ? -1 : Number(facts.ino & 0xffff_ffffn);
  const device = facts === undefined ? -1 : kernelDevice(facts.dev);
  return unixSockets().filter(
    ({ path: name, file }) =>
      name === path || (file !== undefined && file.inode === inode && file.device === device),
  );
}

/** As the kernel has it inside: major << 20 | minor (include/linux/kdev_t.h). */
function kernelDevice(device: bigint): number {
  const major = (device >> 8n) & 0xfffn;
  const minor = (device & 0xffn) | ((device >> 12n) & 0xfff00n);
  return Number((major << 20n) | minor);
}

/** All UNIX sockets. Nobody is connected to: that would end a one-shot daemon. */
export function unixSockets(): UnixSocketEntry[] {
  try {
    return askKernel();
  } catch (error) {
    // A kernel without unix_diag still has the list, without the other ends.
    if (error instanceof SyscallError) return readList();
    throw error;
  }
}

/** The processes that have a socket open, lowest pid first; those of other users are not to be seen. */
export function holdersOfSocket(inode: number): number[] {
  const wanted = `socket:[${inode}]`;
  const pids = readdirSync("/proc").map(Number).filter(Number.isInteger);
  return pids.filter((pid) => hasOpen(pid, wanted)).sort((a, b) => a - b);
}

/** Whether a process has a socket open; false for another user's. */
export function isHolderOfSocket(pid: number, inode: number): boolean {
  return hasOpen(pid, `socket:[${inode}]`);
}

function hasOpen(pid: number, wanted: string): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === wanted);
  } catch {
    // Gone, or another user's.
    return false;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return undefined;
  }
}

function askKernel(): UnixSocketEntry[] {
  const label = "netlink";
  using socket = new Fd(
    check(libc.socket(AF_NETLINK, SOCK_RAW | SOCK.CLOEXEC, NETLINK_SOCK_DIAG), "socket", label),
    label,
  );
  const sizeBytes = NLMSG_HEADER_BYTES + REQUEST_BYTES;
  const request = new NativeBuffer(sizeBytes);
  request.view.setUint32(0, sizeBytes, true);
  request.view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  request.view.setUint16(6, NLM_F_REQUEST | NLM_F_DUMP, true);
  // struct unix_diag_req: u8 family (AF_UNIX), u8 protocol, u16, u32 states, u32 inode, u32 show, u32 cookie[2].
  request.view.setUint8(NLMSG_HEADER_BYTES, 1);
  request.view.setUint32(NLMSG_HEADER_BYTES + 4, ALL_STATES, true);
  request.view.setUint32(NLMSG_HEADER_BYTES + 12, SHOW_NAME_FILE_AND_PEER, true);
  check(libc.write(socket.number, request.address, sizeBytes), "write", label);
  const buffer = new NativeBuffer(RECEIVE_BYTES);
  const entries: UnixSocketEntry[] = [];
  for (;;) {
    const count = check(libc.read(socket.number, buffer.address, RECEIVE_BYTES), "read", label);
    if (takeMessages(buffer.view, count, entries)) return entries;
  }
}

/** True when the last message has come. @throws SyscallError when the kernel refuses */
function takeMessages(view: DataView, sizeBytes: number, into: UnixSocketEntry[]): boolean {
  for (let at = 0; at + NLMSG_HEADER_BYTES <= sizeBytes; ) {
    const length = view.getUint32(at, true);
    const type = view.getUint16(at + 4, true);
    if (type === NLMSG_DONE) return true;
    if (type === NLMSG_ERROR) throw new SyscallError("sock_diag", "ENOENT", "unix_diag");
    into.push(entryOf(view, at + NLMSG_HEADER_BYTES, at + length));
    at += (length + 3) & ~3;
  }
  return sizeBytes === 0;
}

function entryOf(view: DataView, start: number, end: number): UnixSocketEntry {
  let path: string | undefined;
  let peer: number | undefined;
  let file: UnixSocketEntry["file"];
  for (let at = start + DIAG_MESSAGE_BYTES; at + 4 <= end; ) {
    const length = view.getUint16(at, true);
    const type = view.getUint16(at + 2, true);
    if (type === ATTRIBUTE.NAME) path = nameOf(view, at + 4, length - 4);
    // struct unix_diag_vfs: u32 inode, u32 device.
    if (type === ATTRIBUTE.VFS && length >= 12)
      file = { inode: view.getUint32(at + 4, true), device: view.getUint32(at + 8, true) };
    if (type === ATTRIBUTE.PEER) peer = view.getUint32(at + 4, true);
    if (length < 4) break;
    at += (length + 3) & ~3;
  }
  const isListening = view.getUint8(start + 2) === TCP_LISTEN;
  return { inode: view.getUint32(start + 4, true), path, isListening, peer, file };
}

/** An abstract name begins with a zero byte, shown as "@" as elsewhere. */
function nameOf(view: DataView, at: number, sizeBytes: number): string {
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, at, sizeBytes).slice());
  return text.startsWith("\0") ? `@${text.slice(1)}` : text.replace(/\0+$/, "");
}

const FLAG_LISTENING = 0x10000;

function readList(): UnixSocketEntry[] {
  // Columns: Num RefCount Protocol Flags Type St Inode Path.
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .slice(1)
    .filter((line) => line !== "")
    .map((line) => {
      const columns = line.trim().split(/\s+/);
      const path = columns.slice(7).join(" ");
      return {
        inode: Number(columns[6]),
        path: path === "" ? undefined : path,
        isListening: (Number.parseInt(columns[3] as string, 16) & FLAG_LISTENING) !== 0,
        peer: undefined,
      };
    });
}
