/**
 * What virtiofsd writes for its shared folder: the inodes that the guest knows and the files that it holds open, as
 * postcard (virtiofsd, src/passthrough/device_state/serialized.rs; tried with 1.13.2).
 */
import { PostcardReader } from "./postcard-reader.ts";
import type { StateTree } from "./state-tree.ts";

const LOCATIONS = ["root", "path", "invalid", "full path", "file handle"] as const;
const OPTIONS = ["writeback", "announceSubmounts", "posixAcl", "supGroupExtension"] as const;
/** open(2), the lowest two bits. */
const ACCESS_MODES = ["O_RDONLY", "O_WRONLY", "O_RDWR"] as const;

/** @throws FormatError */
export function decodeVirtiofsdState(bytes: Uint8Array): StateTree {
  const reader = new PostcardReader(bytes, "virtiofsd state");
  const version = reader.variant(2) + 1;
  const children = fileSystem(reader);
  if (version === 2) children.push({ name: "mountPaths", children: reader.list(() => mountPath(reader)) });
  reader.expectEnd();
  return { name: "state", note: `virtiofsd, postcard V${version}`, children };
}

function fileSystem(reader: PostcardReader): StateTree[] {
  const inodes = reader.list(() => inode(reader));
  const nextInode = reader.varint();
  const handles = reader.list(() => handle(reader));
  const nextHandle = reader.varint();
  const options = OPTIONS.map((name) => ({ name, value: reader.bool() }));
  return [
    { name: "inodes", note: `${inodes.length}`, children: inodes },
    { name: "nextInode", value: nextInode },
    { name: "handles", note: `${handles.length} open files`, children: handles },
    { name: "nextHandle", value: nextHandle },
    { name: "negotiatedOptions", children: options },
  ];
}

function inode(reader: PostcardReader): StateTree {
  const id = reader.varint();
  const referenceCount = reader.varint();
  const place = location(reader);
  const stored = reader.option(() => fileHandle(reader, "fileHandle"));
  return {
    name: `inode ${id}`,
    children: [
      { name: "referenceCount", value: referenceCount },
      ...place,
      ...(stored === undefined ? [] : [stored]),
    ],
  };
}

function location(reader: PostcardReader): StateTree[] {
  const kind = LOCATIONS[reader.variant(LOCATIONS.length)];
  const found: StateTree[] = [{ name: "location", value: kind }];
  if (kind === "path") found.push({ name: "parent", value: reader.varint(), note: "inode" });
  if (kind === "path" || kind === "full path") found.push({ name: "filename", value: reader.string() });
  if (kind === "file handle") found.push(fileHandle(reader, "handle"));
  return found;
}

function fileHandle(reader: PostcardReader, name: string): StateTree {
  return {
    name,
    children: [
      { name: "mountId", value: reader.varint() },
      { name: "type", value: reader.signed() },
      { name: "handle", bytes: reader.bytes() },
    ],
  };
}

function handle(reader: PostcardReader): StateTree {
  const id = reader.varint();
  const inodeId = reader.varint();
  // The only source that there is: opened anew, with these flags.
  reader.variant(1);
  const flags = reader.signed();
  const mode = ACCESS_MODES[Number(flags & 3n)];
  return {
    name: `handle ${id}`,
    children: [
      { name: "inode", value: inodeId },
      { name: "flags", value: flags, note: `open(2): 0x${BigInt.asUintN(32, flags).toString(16)}, ${mode}` },
    ],
  };
}

function mountPath(reader: PostcardReader): StateTree {
  return { name: `mount ${reader.varint()}`, value: reader.string() };
}
