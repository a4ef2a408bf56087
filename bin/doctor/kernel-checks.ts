import { tmpdir } from "node:os";
import type * as Sys from "../../src/sys/mod.ts";
import type { Check } from "./finding.ts";

/** io_uring_setup's number on every architecture (asm-generic). */
const SYS_IO_URING_SETUP = 425;

/** What the kernel and the C library let this process do. Each one is tried; nothing stays behind. */
export const kernelChecks: readonly Check[] = [
  {
    name: "C library",
    isEssential: true,
    remedy: "a glibc system is needed: libc.so.6 must load through bun:ffi",
    look: async () => {
      await loadSys();
      return { state: "ok", detail: "libc.so.6 by bun:ffi" };
    },
  },
  {
    name: "memfd",
    isEssential: true,
    remedy: "guest memory needs memfd_create with seals (Linux 3.17, and no seccomp filter against it)",
    look: async () => {
      const { createMemfd, isSealedAgainstShrinking } = await loadSys();
      using fd = createMemfd("vhu-doctor", 4096);
      if (!isSealedAgainstShrinking(fd)) return { state: "missing", detail: "seals have no effect" };
      return { state: "ok", detail: "can be made and sealed" };
    },
  },
  {
    name: "UNIX sockets",
    isEssential: true,
    remedy: "vhost-user needs UNIX sockets that carry fds (SCM_RIGHTS)",
    look: async () => passFd(await loadSys()),
  },
  {
    name: "O_TMPFILE",
    isEssential: false,
    remedy:
      "set TMPDIR to a file system that has it (ext4, xfs, btrfs, tmpfs): large device states are staged in one",
    look: async () => {
      const { openTemporaryFile } = await loadSys();
      using file = openTemporaryFile(tmpdir());
      return { state: "ok", detail: `works in ${file.label}` };
    },
  },
  {
    name: "userfaultfd",
    isEssential: false,
    remedy: "run as root, or sysctl vm.unprivileged_userfaultfd=1: only for post-copy",
    look: async () => {
      const { createUserfaultfd } = await loadSys();
      using fd = createUserfaultfd();
      return { state: "ok", detail: `${fd.label} can be made` };
    },
  },
  {
    name: "io_uring",
    isEssential: false,
    remedy: "sysctl kernel.io_uring_disabled=0, and no seccomp filter against it: disks are slower without",
    look: async () => tryIoUring(await loadSys()),
  },
  {
    name: "landlock",
    isEssential: false,
    remedy: "Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and landlock in the kernel's lsm= list",
    look: async () => landlockLook(await loadSys()),
  },
  {
    name: "seccomp",
    isEssential: false,
    remedy: "only for VMMs and containers that filter system calls: a kernel with CONFIG_SECCOMP",
    look: async () => {
      const { hasSeccomp } = await loadSys();
      if (hasSeccomp()) return { state: "ok", detail: "in this kernel; vhu itself filters no system calls" };
      return { state: "note", detail: "not in this kernel" };
    },
  },
];

/** What `vhu device run` confines itself with. Nothing is restricted by asking. */
function landlockLook({ landlockAbi }: typeof Sys) {
  const abi = landlockAbi();
  if (abi > 0)
    return { state: "ok", detail: `ABI ${abi}: vhu device run confines itself to its files` } as const;
  const detail = "vhu device run confines itself without: it can open every file that its user can";
  return { state: "note", detail } as const;
}

/** Loaded late: where bun:ffi or the C library fails, the other checks still tell their story. */
async function loadSys(): Promise<typeof Sys> {
  return import("../../src/sys/mod.ts");
}

function passFd({ disposeAll, NativeBuffer, UnixSocket }: typeof Sys) {
  const [sender, receiver] = UnixSocket.pair();
  const received: Sys.Fd[] = [];
  try {
    const byte = new NativeBuffer(1);
    sender.send(byte, 0, 1, [sender.fd]);
    receiver.receive(byte, 0, 1, received);
    if (received.length === 1) return { state: "ok", detail: "an fd went through" } as const;
    return { state: "missing", detail: "an fd that was sent did not arrive" } as const;
  } finally {
    disposeAll([sender, receiver, ...received]);
  }
}

/** With no parameters, an allowed call fails with EFAULT before it makes anything. */
function tryIoUring({ Errno, errnoName, lastErrno, libc }: typeof Sys) {
  libc.syscall(SYS_IO_URING_SETUP, 0, 0, 0);
  const error = lastErrno();
  if (errnoName(error) === "EFAULT") return { state: "ok", detail: "allowed" } as const;
  const why = error === Errno.EPERM ? "switched off or filtered (EPERM)" : errnoName(error);
  return { state: "note", detail: why } as const;
}
