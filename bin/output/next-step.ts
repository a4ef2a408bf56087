import { SyscallError } from "../../src/errors.ts";

const STEPS: Readonly<Record<string, string>> = {
  ENOENT: "there is nothing of that name: check the path",
  EACCES: "this user may not: check the permissions",
  EPERM: "this user may not: see vhu doctor",
  EISDIR: "that is a folder: give a file",
  EROFS: "it is mounted read-only: choose another place",
  ENOTDIR: "a part of the path is no folder: check the path",
  EIO: "the disk or its network failed: see dmesg, and read the file from elsewhere",
  ENOSPC: "the disk is full: make room, or choose another place",
  EDQUOT: "the quota is used up: make room, or choose another place",
  EMFILE: "too many open files: raise ulimit -n",
  ENOMEM: "the host has too little memory free",
  ECONNREFUSED: "nobody listens there: start the other side first",
  EADDRINUSE: "something is there already: choose another name, or end who uses it",
};

/** What to do about a failed system call, where that can be said. */
export function nextStep(error: unknown): string | undefined {
  return error instanceof SyscallError ? STEPS[error.errno] : undefined;
}
