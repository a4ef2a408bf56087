/** FUSE over virtiofs: opcodes and structs of the kernel's include/uapi/linux/fuse.h (protocol 7.38), little-endian. */

export const FUSE_ROOT_ID = 1n;
export const FUSE_MAJOR = 7;
export const FUSE_MINOR = 38;

export const opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  RELEASE: 18,
  FSYNC: 20,
  INIT: 26,
} as const;

/** struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding. */
export const IN_HEADER_BYTES = 40;
/** struct fuse_out_header: len, error, unique. */
export const OUT_HEADER_BYTES = 16;
/** struct fuse_attr. */
const ATTR_BYTES = 88;
/** struct fuse_entry_out: nodeid, generation, two u64 and two u32 of validity, attr. */
export const ENTRY_OUT_BYTES = 40 + ATTR_BYTES;
/** struct fuse_attr_out: u64 and u32 of validity, dummy, attr. */
export const ATTR_OUT_BYTES = 16 + ATTR_BYTES;
/** struct fuse_open_out: fh, open_flags, backing_id. */
export const OPEN_OUT_BYTES = 16;
/** struct fuse_init_out since 7.23. */
export const INIT_OUT_BYTES = 64;
/** struct fuse_write_out: size, padding. */
export const WRITE_OUT_BYTES = 8;

export interface FuseAttr {
  readonly inode: bigint;
  readonly sizeBytes: number;
  readonly mode: number;
  readonly links: number;
}

export interface FuseEntry {
  readonly nodeId: bigint;
  readonly generation: bigint;
  readonly attr: FuseAttr;
}

export interface FuseInit {
  readonly major: number;
  readonly minor: number;
  readonly flags: number;
  readonly maxWriteBytes: number;
}

/** Builds an argument struct field by field. */
export class FuseArgs {
  readonly #parts: Uint8Array[] = [];

  u32(...values: number[]): this {
    this.#parts.push(new Uint8Array(new Uint32Array(values).buffer));
    return this;
  }

  u64(...values: bigint[]): this {
    this.#parts.push(new Uint8Array(new BigUint64Array(values).buffer));
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#parts.push(bytes);
    return this;
  }

  /** A name with its terminating zero. */
  name(name: string): this {
    return this.bytes(new TextEncoder().encode(`${name}\0`));
  }

  get whole(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

export function encodeRequest(code: number, unique: bigint, nodeId: bigint, args: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(IN_HEADER_BYTES + args.length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint32(4, code, true);
  view.setBigUint64(8, unique, true);
  view.setBigUint64(16, nodeId, true);
  bytes.set(args, IN_HEADER_BYTES);
  return bytes;
}

/** The body of a reply. Throws for an error or the answer to another request. */
export function decodeReply(reply: Uint8Array, unique: bigint, what: string): DataView {
  const view = new DataView(reply.buffer, reply.byteOffset, reply.byteLength);
  if (reply.length < OUT_HEADER_BYTES) throw new Error(`${what}: a reply of ${reply.length} bytes`);
  const [sizeBytes, error] = [view.getUint32(0, true), view.getInt32(4, true)];
  if (view.getBigUint64(8, true) !== unique) throw new Error(`${what}: the reply is to another request`);
  if (error !== 0) throw new FuseError(what, -error);
  if (sizeBytes !== reply.length) {
    throw new Error(`${what}: the header says ${sizeBytes} bytes, the device wrote ${reply.length}`);
  }
  return new DataView(reply.buffer, reply.byteOffset + OUT_HEADER_BYTES, sizeBytes - OUT_HEADER_BYTES);
}

export function decodeEntry(view: DataView): FuseEntry {
  return {
    nodeId: view.getBigUint64(0, true),
    generation: view.getBigUint64(8, true),
    attr: decodeAttr(view, 40),
  };
}

export function decodeAttr(view: DataView, offset: number): FuseAttr {
  return {
    inode: view.getBigUint64(offset, true),
    sizeBytes: Number(view.getBigUint64(offset + 8, true)),
    mode: view.getUint32(offset + 60, true),
    links: view.getUint32(offset + 64, true),
  };
}

export function decodeInit(view: DataView): FuseInit {
  return {
    major: view.getUint32(0, true),
    minor: view.getUint32(4, true),
    flags: view.getUint32(12, true),
    maxWriteBytes: view.getUint32(20, true),
  };
}

/** The file system's own refusal. */
export class FuseError extends Error {
  constructor(
    what: string,
    /** As in errno.h, e.g. 2 for ENOENT. */
    readonly errno: number,
  ) {
    super(`${what}: errno ${errno}`);
  }
}
