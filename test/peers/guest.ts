import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type CpioEntry, cpioArchive } from "./cpio.ts";
import { resolveModules } from "./kernel-modules.ts";
import { peersFolder } from "./peer.ts";

export interface GuestOptions {
  /** Folder the initrd is written to. */
  readonly dir: string;
  /** Kernel modules to load, with what they depend on; the virtio PCI transport is always loaded first. */
  readonly modules: readonly string[];
  /** Lines of busybox sh, run as process 1 after /proc, /sys, /dev, /tmp and the modules are there. */
  readonly init: string;
  /** More files, by absolute path in the guest; their mode is 0755. */
  readonly files?: Readonly<Record<string, Uint8Array | string>>;
  /** Name of the initrd's file, for several guests in one folder. Default "guest". */
  readonly name?: string;
}

export interface Guest {
  readonly kernel: string;
  readonly initrd: string;
}

/**
 * Builds an initramfs for Debian's cloud kernel. ext4 (which mounts ext2 too) is built into that kernel; busybox
 * has `mke2fs` and `mkdosfs`; to mount vfat, ask for nls_cp437 and nls_ascii besides vfat, which name no
 * dependency on them. When `init` returns, the guest powers off.
 *
 * @example
 * const guest = buildGuest({ dir, modules: ["virtio_blk"], init: "mke2fs /dev/vda && echo made" });
 */
export function buildGuest(options: GuestOptions): Guest {
  const folder = join(peersFolder(), "guest");
  const modules = resolveModules(join(folder, "modules"), ["virtio_pci", ...options.modules]);
  const entries: CpioEntry[] = [
    { path: "bin/busybox", kind: "file", content: readFileSync(join(folder, "busybox")) },
    { path: "bin/sh", kind: "symlink", content: "busybox" },
    ...["dev", "mnt", "proc", "sys", "tmp"].map((path): CpioEntry => ({ path, kind: "folder" })),
    { path: "init", kind: "file", content: initScript(modules.map((module) => module.name)) },
    { path: "init.guest", kind: "file", content: `${options.init}\n` },
  ];
  for (const { name, bytes } of modules) {
    entries.push({ path: `modules/${name}.ko`, kind: "file", content: bytes });
  }
  for (const [path, content] of Object.entries(options.files ?? {})) {
    entries.push({ path: path.replace(/^\/+/, ""), kind: "file", content });
  }
  const initrd = join(options.dir, `${options.name ?? "guest"}.cpio`);
  writeFileSync(initrd, cpioArchive(entries));
  return { kernel: join(folder, "vmlinuz"), initrd };
}

function initScript(modules: readonly string[]): string {
  return `#!/bin/sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
${modules.map((name) => `insmod /modules/${name}.ko || echo "insmod ${name} failed"`).join("\n")}
. /init.guest
poweroff -f
`;
}
