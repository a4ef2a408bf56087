import { PeerError, SyscallError } from "../errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, MAX_DEVICE_STATE_BYTES, STATE_CHUNK_BYTES } from "../limits.ts";
import {
  createPipe,
  Deadline,
  eventLoopTurn,
  type Fd,
  growPipe,
  NativeBuffer,
  PeerStream,
  POLL,
  UnixSocket,
  waitReady,
} from "../sys/mod.ts";
import type { BackendClient } from "./backend-client.ts";

export interface TransferOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long the transfer may go without a byte, and how long CHECK may take. */
  readonly idleTimeoutMs?: number | undefined;
  readonly maxBytes?: number | undefined;
  /** What is offered to the back-end. Cloud Hypervisor uses a socket pair, everybody else a pipe. */
  readonly channel?: "pipe" | "socketpair" | undefined;
}

/**
 * Fetches a back-end's state: SET_DEVICE_STATE_FD, read to the end, CHECK. The device must be suspended.
 *
 * @param onBytes takes a piece as it comes; valid during the call
 * @returns the size in bytes
 * @throws PeerError when the back-end refuses, stalls, dies, or says at CHECK that the state is not whole
 */
export async function saveDeviceState(
  client: BackendClient,
  onBytes: (bytes: Uint8Array) => void,
  options: TransferOptions = {},
): Promise<number> {
  const maxBytes = options.maxBytes ?? MAX_DEVICE_STATE_BYTES;
  using stream = openChannel(client, "save", options);
  const buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  let sizeBytes = 0;
  for (let round = 1; ; round++) {
    if (round % ROUNDS_PER_TURN === 0) await turn(options);
    const moved = stream.read(buffer);
    if (moved === 0) break;
    if (moved === "would-block") await waitForPeer(stream, POLL.IN, "sent", options);
    else {
      sizeBytes += moved;
      if (sizeBytes > maxBytes) throw new PeerError(`the device state is larger than the limit of ${maxBytes} bytes`);
      onBytes(buffer.bytes.subarray(0, moved));
    }
  }
  stream[Symbol.dispose]();
  await client.checkDeviceState(options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, options.signal);
  return sizeBytes;
}

/**
 * Gives a back-end its state: SET_DEVICE_STATE_FD, write, close, CHECK. Works before SET_FEATURES and memory, too.
 * @throws PeerError when the back-end refuses, stalls, dies, or does not take the state as a whole
 */
export async function loadDeviceState(
  client: BackendClient,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: TransferOptions = {},
): Promise<number> {
  using stream = openChannel(client, "load", options);
  const buffer = new NativeBuffer(STATE_CHUNK_BYTES);
  let sizeBytes = 0;
  let round = 0;
  for await (const chunk of chunks) {
    if (++round % ROUNDS_PER_TURN === 0) await turn(options);
    for (let at = 0; at < chunk.length; at += buffer.sizeBytes) {
      const piece = chunk.subarray(at, at + buffer.sizeBytes);
      buffer.bytes.set(piece);
      await writePiece(stream, buffer, piece.length, options);
      sizeBytes += piece.length;
    }
  }
  stream[Symbol.dispose]();
  await client.checkDeviceState(options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, options.signal);
  return sizeBytes;
}

/** How many pieces move before the event loop gets a turn (Ctrl-C, progress). */
const ROUNDS_PER_TURN = 64;

async function turn(options: TransferOptions): Promise<void> {
  await eventLoopTurn();
  options.signal?.throwIfAborted();
}

async function writePiece(stream: PeerStream, buffer: NativeBuffer, sizeBytes: number, options: TransferOptions) {
  for (let done = 0; done < sizeBytes; ) {
    let moved: number | "would-block";
    try {
      moved = stream.write(buffer, done, sizeBytes - done);
    } catch (error) {
      if (!(error instanceof SyscallError && error.errno === "EPIPE")) throw error;
      throw new PeerError("the back-end stopped reading its state before the end", { cause: error, reconnect: true });
    }
    if (moved === "would-block") await waitForPeer(stream, POLL.OUT, "took", options);
    else done += moved;
  }
}

/** Our end of the channel. The other end is with the back-end alone, so that its death is seen. */
function openChannel(client: BackendClient, direction: "save" | "load", options: TransferOptions): PeerStream {
  using stack = new DisposableStack();
  const [ours, theirs] = options.channel === "socketpair" ? socketPair() : pipe(direction);
  stack.use(ours);
  stack.use(theirs);
  const own = client.setDeviceStateFd(direction, theirs);
  const fd = own ?? ours;
  if (own === undefined) {
    theirs[Symbol.dispose]();
    stack.move();
  }
  return direction === "save" ? PeerStream.forReading(fd) : PeerStream.forWriting(fd);
}

function pipe(direction: "save" | "load"): [Fd, Fd] {
  const { readEnd, writeEnd } = createPipe();
  // One wake-up per megabyte instead of one per 64 KiB; where the limit is lower the pipe stays as it is.
  growPipe(readEnd, STATE_CHUNK_BYTES);
  return direction === "save" ? [readEnd, writeEnd] : [writeEnd, readEnd];
}

function socketPair(): [Fd, Fd] {
  const [a, b] = UnixSocket.pair();
  return [a.fd, b.fd];
}

async function waitForPeer(stream: PeerStream, events: number, did: string, options: TransferOptions) {
  const idleTimeoutMs = options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS;
  const fd = stream.watchable ?? stream.fd;
  if ((await waitReady(fd, events, new Deadline(idleTimeoutMs), options.signal)) !== 0) return;
  const message = `the back-end ${did} no byte of its device state for ${idleTimeoutMs} ms`;
  throw new PeerError(message, { reconnect: true });
}

