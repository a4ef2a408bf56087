import { accessSync, constants, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

/** A part from Debian's packages that vhu is tested against. */
export type PeerName =
  | "qemu-system-x86_64"
  | "qemu-storage-daemon"
  | "qemu-img"
  | "virtiofsd"
  | "libblkio"
  | "guest-kernel"
  | "busybox"
  | "chromium";

/**
 * `command` is what to run, to be followed by the arguments. Of "guest-kernel" it is the path of the vmlinuz
 * alone, of "libblkio" the prefix that runs a program linked against it (see `libblkioCompileFlags`).
 */
export interface Peer {
  readonly command: readonly string[];
  /** The upstream version, e.g. "10.0.2". */
  readonly version: string;
}

export interface MissingPeer {
  readonly missing: string;
  /** How to get it, for a person. */
  readonly how: string;
}

/** Where install.sh puts what it unpacks: `$VHU_PEERS`, or .peers in the repository. */
export function peersFolder(): string {
  return resolve(process.env.VHU_PEERS ?? join(import.meta.dir, "../../.peers"));
}

/** Finds one peer. It is there when install.sh has listed it and its files still stand. */
export function peer(name: PeerName): Peer | MissingPeer {
  const { command, files } = location(name);
  const version = listedVersion(name);
  const absent = files.filter((path) => path === undefined || !readable(path));
  if (version === undefined || absent.length > 0) {
    return { missing: name, how: "run test/peers/install.sh as root (Debian 12, amd64)" };
  }
  return { command, version };
}

/**
 * The peers a test needs, or undefined when one is missing, so that the test can `test.skipIf(!peers)`.
 * One line then says what is missing and how to get it.
 *
 * @throws Error in CI (`CI=true`), where a missing peer is a failure and never a skip.
 */
export function requirePeers<N extends PeerName>(names: readonly N[]): Record<N, Peer> | undefined {
  const found = {} as Record<N, Peer>;
  const missing: MissingPeer[] = [];
  for (const name of names) {
    const one = peer(name);
    if ("missing" in one) missing.push(one);
    else found[name] = one;
  }
  const first = missing[0];
  if (first === undefined) return found;
  const message = `missing peers: ${missing.map((one) => one.missing).join(", ")}; ${first.how}`;
  if (process.env.CI === "true") throw new Error(message);
  console.error(`skipped, ${message}`);
  return undefined;
}

/**
 * What a C compiler needs, after its sources, to link against the trixie root's libblkio with the host's libc:
 * `gcc -O2 -o load load.c ...libblkioCompileFlags()`. Run the result behind `peer("libblkio").command`.
 */
export function libblkioCompileFlags(): string[] {
  const root = join(peersFolder(), "trixie/usr");
  // libblkio wants a newer libc than the host has; the root's loader provides it at run time.
  return [
    `-I${root}/include`,
    `-L${root}/lib/x86_64-linux-gnu`,
    "-lblkio",
    "-pthread",
    "-Wl,--allow-shlib-undefined",
  ];
}

function location(name: PeerName): { command: string[]; files: (string | undefined)[] } {
  const folder = peersFolder();
  const trixie = join(folder, "trixie");
  const loader = join(trixie, "usr/lib64/ld-linux-x86-64.so.2");
  // No chroot: the root's own loader finds the root's own libraries.
  const inTrixie = [loader, "--library-path", join(trixie, "usr/lib/x86_64-linux-gnu")];
  switch (name) {
    case "virtiofsd": {
      const program = join(trixie, "usr/libexec/virtiofsd");
      return { command: [...inTrixie, program], files: [loader, program] };
    }
    case "libblkio":
      return { command: inTrixie, files: [loader, join(trixie, "usr/include/blkio.h")] };
    case "guest-kernel": {
      const kernel = join(folder, "guest/vmlinuz");
      return { command: [kernel], files: [kernel, join(folder, "guest/modules/modules.builtin")] };
    }
    case "busybox": {
      const program = join(folder, "guest/busybox");
      return { command: [program], files: [program] };
    }
    default: {
      const program = Bun.which(name);
      return { command: [program ?? name], files: [program ?? undefined] };
    }
  }
}

/** peers.tsv, written last by install.sh: peer, upstream version, Debian version. */
function listedVersion(name: PeerName): string | undefined {
  const path = join(peersFolder(), "peers.tsv");
  if (!readable(path)) return undefined;
  const row = readFileSync(path, "utf8")
    .split("\n")
    .map((line) => line.split("\t"))
    .find((columns) => columns[0] === name);
  return row?.[1];
}

function readable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}
