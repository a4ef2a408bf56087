import type { Driver } from "./driver/mod.ts";
import {
  ATTR_OUT_BYTES,
  decodeAttr,
  decodeEntry,
  decodeInit,
  decodeReply,
  ENTRY_OUT_BYTES,
  encodeRequest,
  FUSE_MAJOR,
  FUSE_MINOR,
  FUSE_ROOT_ID,
  FuseArgs,
  type FuseAttr,
  type FuseEntry,
  type FuseInit,
  INIT_OUT_BYTES,
  OPEN_OUT_BYTES,
  OUT_HEADER_BYTES,
  opcode,
  WRITE_OUT_BYTES,
} from "./fuse-wire.ts";

/** virtio 1.3, 5.11.2: queue 0 takes FORGET and INTERRUPT, the others everything else. */
const HIPRIO_QUEUE = 0;
const REQUEST_QUEUE = 1;

const MAX_IO_BYTES = 128 * 1024;
/** A request's arguments are small but for a write's data. */
const REQUEST_BYTES = 4096 + MAX_IO_BYTES;
const REPLY_BYTES = OUT_HEADER_BYTES + MAX_IO_BYTES;

/** FUSE_INIT as Linux sends it, without any option but FUSE_BIG_WRITES (32) and FUSE_MAX_PAGES (1 << 22). */
const INIT_FLAGS = 32 | (1 << 22);
const MAX_READAHEAD_BYTES = 128 * 1024;

/** A file that the client holds open. Bigints are decimal strings in a state, so that it survives JSON. */
interface OpenFile {
  readonly nodeId: bigint;
  readonly handle: bigint;
}

/** Plain JSON: what a client goes on from. */
export interface FuseClientState {
  readonly nextUnique: string;
  /** By path: nodeid, and how often it was looked up. */
  readonly nodes: Readonly<Record<string, { readonly nodeId: string; readonly lookups: number }>>;
  readonly open: Readonly<Record<string, { readonly nodeId: string; readonly handle: string }>>;
}

/** A FUSE client over a virtiofs device: what a guest kernel does, one request at a time. */
export class FuseClient {
  readonly #request: number;
  readonly #reply: number;
  #nextUnique: bigint;
  readonly #nodes = new Map<string, { nodeId: bigint; lookups: number }>();
  readonly #open = new Map<string, OpenFile>();

  /** @param state of an earlier client: then no FUSE_INIT is sent again */
  constructor(
    readonly driver: Driver,
    state?: FuseClientState,
  ) {
    this.#request = driver.memory.allocate(REQUEST_BYTES, 4096);
    this.#reply = driver.memory.allocate(REPLY_BYTES, 4096);
    this.#nextUnique = BigInt(state?.nextUnique ?? 2);
    for (const [path, { nodeId, lookups }] of Object.entries(state?.nodes ?? {})) {
      this.#nodes.set(path, { nodeId: BigInt(nodeId), lookups });
    }
    for (const [path, { nodeId, handle }] of Object.entries(state?.open ?? {})) {
      this.#open.set(path, { nodeId: BigInt(nodeId), handle: BigInt(handle) });
    }
  }

  get nodeCount(): number {
    return this.#nodes.size;
  }

  init(): FuseInit {
    const args = new FuseArgs().u32(FUSE_MAJOR, FUSE_MINOR, MAX_READAHEAD_BYTES, INIT_FLAGS);
    // flags2 and 11 unused words: struct fuse_init_in since 7.36.
    args.u32(...new Array<number>(12).fill(0));
    return decodeInit(this.#call(opcode.INIT, 0n, args, INIT_OUT_BYTES, "FUSE_INIT"));
  }

  /** Looks up a path below the root, part by part. @throws FuseError 2 where it does not exist */
  lookup(path: string): FuseEntry {
    let parent = FUSE_ROOT_ID;
    let entry: FuseEntry | undefined;
    let walked = "";
    for (const name of path.split("/")) {
      walked = walked === "" ? name : `${walked}/${name}`;
      const args = new FuseArgs().name(name);
      entry = decodeEntry(this.#call(opcode.LOOKUP, parent, args, ENTRY_OUT_BYTES, `lookup of ${walked}`));
      parent = entry.nodeId;
      const lookups = (this.#nodes.get(walked)?.lookups ?? 0) + 1;
      this.#nodes.set(walked, { nodeId: entry.nodeId, lookups });
    }
    return entry!;
  }

  /** Attributes of a path that was looked up before: by its nodeid, without a new look-up. */
  getattr(path: string): FuseAttr {
    const args = new FuseArgs().u32(0, 0).u64(0n);
    return decodeAttr(
      this.#call(opcode.GETATTR, this.#nodeOf(path), args, ATTR_OUT_BYTES, `getattr of ${path}`),
      16,
    );
  }

  /** Opens a path that was looked up before. `flags` as in open(2): 0 read-only, 2 read-write. */
  open(path: string, flags = 0): void {
    const nodeId = this.#nodeOf(path);
    const args = new FuseArgs().u32(flags, 0);
    const reply = this.#call(opcode.OPEN, nodeId, args, OPEN_OUT_BYTES, `open of ${path}`);
    this.#open.set(path, { nodeId, handle: reply.getBigUint64(0, true) });
  }

  /** Reads from an open file. */
  read(path: string, offset: number, sizeBytes: number): Uint8Array {
    const { nodeId, handle } = this.#handleOf(path);
    const args = new FuseArgs().u64(handle, BigInt(offset)).u32(sizeBytes, 0).u64(0n).u32(0, 0);
    const reply = this.#call(opcode.READ, nodeId, args, sizeBytes, `read of ${path}`);
    return new Uint8Array(reply.buffer, reply.byteOffset, reply.byteLength).slice();
  }

  /** Writes to an open file; returns how many bytes were taken. */
  write(path: string, offset: number, bytes: Uint8Array): number {
    const { nodeId, handle } = this.#handleOf(path);
    const args = new FuseArgs()
      .u64(handle, BigInt(offset))
      .u32(bytes.length, 0)
      .u64(0n)
      .u32(0, 0)
      .bytes(bytes);
    return this.#call(opcode.WRITE, nodeId, args, WRITE_OUT_BYTES, `write of ${path}`).getUint32(0, true);
  }

  /** Closes an open file. */
  release(path: string): void {
    const { nodeId, handle } = this.#handleOf(path);
    const args = new FuseArgs().u64(handle).u32(0, 0).u64(0n);
    this.#call(opcode.RELEASE, nodeId, args, 0, `release of ${path}`);
    this.#open.delete(path);
  }

  /** Gives a node back, over the high-priority queue; FORGET has no reply. */
  forget(path: string): void {
    const node = this.#nodes.get(path);
    if (node === undefined) throw new Error(`${path} was not looked up`);
    const request = encodeRequest(
      opcode.FORGET,
      this.#unique(),
      node.nodeId,
      new FuseArgs().u64(BigInt(node.lookups)).whole,
    );
    this.driver.memory.write(this.#request, request);
    const piece = { guestAddress: this.#request, sizeBytes: request.length, writable: false };
    this.driver.run(HIPRIO_QUEUE, [piece]);
    this.#nodes.delete(path);
  }

  exportState(): FuseClientState {
    const nodes = [...this.#nodes].map(
      ([path, { nodeId, lookups }]) => [path, { nodeId: String(nodeId), lookups }] as const,
    );
    const open = [...this.#open].map(
      ([path, { nodeId, handle }]) => [path, { nodeId: String(nodeId), handle: String(handle) }] as const,
    );
    return {
      nextUnique: String(this.#nextUnique),
      nodes: Object.fromEntries(nodes),
      open: Object.fromEntries(open),
    };
  }

  /** One request; the body of its reply, at most `replyBytes` long. */
  #call(code: number, nodeId: bigint, args: FuseArgs, replyBytes: number, what: string): DataView {
    const unique = this.#unique();
    const request = encodeRequest(code, unique, nodeId, args.whole);
    if (request.length > REQUEST_BYTES || replyBytes > MAX_IO_BYTES) throw new Error(`${what} is too large`);
    this.driver.memory.write(this.#request, request);
    const writtenBytes = this.driver.run(REQUEST_QUEUE, [
      { guestAddress: this.#request, sizeBytes: request.length, writable: false },
      { guestAddress: this.#reply, sizeBytes: OUT_HEADER_BYTES + replyBytes, writable: true },
    ]);
    if (writtenBytes > OUT_HEADER_BYTES + replyBytes) throw new Error(`${what}: the device wrote too much`);
    return decodeReply(this.driver.memory.read(this.#reply, writtenBytes), unique, what);
  }

  /** Linux counts in steps of two: the lowest bit marks an INTERRUPT. */
  #unique(): bigint {
    const unique = this.#nextUnique;
    this.#nextUnique += 2n;
    return unique;
  }

  #nodeOf(path: string): bigint {
    const node = this.#nodes.get(path);
    if (node === undefined) throw new Error(`${path} was not looked up`);
    return node.nodeId;
  }

  #handleOf(path: string): OpenFile {
    const file = this.#open.get(path);
    if (file === undefined) throw new Error(`${path} is not open`);
    return file;
  }
}
