import { dirname } from "node:path";

/** One entry of an initramfs. `path` is relative to the root, without a leading slash. */
export interface CpioEntry {
  readonly path: string;
  /** File bytes, or the target of a symlink; nothing for a folder. */
  readonly content?: Uint8Array | string;
  readonly kind: "file" | "folder" | "symlink";
  /** Permission bits; default 0755. */
  readonly mode?: number;
}

// Linux Documentation/driver-api/early-userspace/buffer-format.rst: "newc" is magic 070701 and 13 fields of 8
// hex digits; header plus name, and the data, are each padded to 4 bytes.
const MAGIC = "070701";
const FILE_TYPE = { file: 0o100000, folder: 0o040000, symlink: 0o120000 } as const;

/** A cpio archive in the kernel's "newc" form. Folders that entries stand in are added. */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Buffer[] = [];
  const folders = new Set<string>(["."]);
  let inode = 1;
  const add = (entry: CpioEntry) => {
    const parent = dirname(entry.path);
    if (!folders.has(parent)) add({ path: parent, kind: "folder" });
    if (entry.kind === "folder") {
      if (folders.has(entry.path)) return;
      folders.add(entry.path);
    }
    parts.push(...encode(entry, inode++));
  };
  for (const entry of entries) add(entry);
  parts.push(...encode({ path: "TRAILER!!!", kind: "file", mode: 0 }, 0));
  return Buffer.concat(parts);
}

function encode(entry: CpioEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`);
  const data = Buffer.from(entry.content ?? "");
  const mode = inode === 0 ? 0 : FILE_TYPE[entry.kind] | (entry.mode ?? 0o755);
  const fields = [
    inode,
    mode,
    0, // uid
    0, // gid
    entry.kind === "folder" ? 2 : 1, // links
    0, // mtime: the same input gives the same archive
    data.length,
    0, // device major
    0, // device minor
    0, // rdev major
    0, // rdev minor
    name.length,
    0, // check, unused in newc
  ];
  const header = MAGIC + fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return [padded(Buffer.concat([Buffer.from(header), name])), padded(data)];
}

function padded(bytes: Buffer): Buffer {
  const over = bytes.length % 4;
  return over === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - over)]);
}
