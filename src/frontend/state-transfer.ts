import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, STATE_CHUNK_BYTES } from "../limits.ts";
import { createPipe, type Fd, growPipe, UnixSocket } from "../sys/mod.ts";
import type { BackendClient } from "./backend-client.ts";
import { readStateStream, type StreamOptions, writeStateStream } from "./state-stream.ts";

/** `idleTimeoutMs` also bounds how long CHECK may take. */
export interface TransferOptions extends StreamOptions {
  /** What is offered to the back-end. Cloud Hypervisor uses a socket pair, everybody else a pipe. */
  readonly channel?: "pipe" | "socketpair" | undefined;
}

/**
 * Fetches a back-end's state: SET_DEVICE_STATE_FD, read to the end, CHECK. The device must be suspended.
 *
 * @param onBytes takes a piece as it comes; valid during the call
 * @returns the size in bytes
 * @throws PeerError when the back-end refuses, stalls, dies, or says at CHECK that the state is not whole;
 *   what `signal` was aborted with: the next transfer can begin at once then
 */
export async function saveDeviceState(
  client: BackendClient,
  onBytes: (bytes: Uint8Array) => void,
  options: TransferOptions = {},
): Promise<number> {
  const sizeBytes = await readStateStream(openChannel(client, "save", options), onBytes, options);
  await client.checkDeviceState(options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, options.signal);
  return sizeBytes;
}

/**
 * Gives a back-end its state: SET_DEVICE_STATE_FD, write, close, CHECK. Works before SET_FEATURES and memory, too.
 * @throws PeerError when the back-end refuses, stalls, dies, or does not take the state as a whole;
 *   what `signal` was aborted with: the next transfer can begin at once then
 */
export async function loadDeviceState(
  client: BackendClient,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  options: TransferOptions = {},
): Promise<number> {
  const sizeBytes = await writeStateStream(openChannel(client, "load", options), chunks, options);
  await client.checkDeviceState(options.idleTimeoutMs ?? DEFAULT_TRANSFER_IDLE_TIMEOUT_MS, options.signal);
  return sizeBytes;
}

/** Our end of the channel. The other end is with the back-end alone, so that its death is seen. */
function openChannel(client: BackendClient, direction: "save" | "load", options: TransferOptions): Fd {
  options.signal?.throwIfAborted();
  using stack = new DisposableStack();
  const [ours, theirs] = options.channel === "socketpair" ? socketPair() : pipe(direction);
  stack.use(ours);
  stack.use(theirs);
  const own = client.setDeviceStateFd(direction, theirs);
  if (own !== undefined) return own;
  theirs[Symbol.dispose]();
  stack.move();
  return ours;
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
