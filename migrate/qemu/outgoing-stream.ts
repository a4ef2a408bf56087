import { PeerError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import {
  Deadline,
  disposeAll,
  eventLoopTurn,
  type Fd,
  NativeBuffer,
  POLL,
  type UnixSocket,
  WOULD_BLOCK,
  waitReady,
} from "../../src/sys/mod.ts";
import type { MoveOptions } from "../driver.ts";
import { migrationError } from "./migration-state.ts";
import { giveStreamSocket } from "./migration-stream.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";
import { type ParsedStream, StreamParser } from "./stream-parser.ts";
import type { RamSink } from "./stream-ram.ts";

/** Takes the memory of a stream. */
export interface MemoryCollector extends RamSink {
  /** Of pages; those that come again count again. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Until there is room for more of the stream. */
  ready(): Promise<void>;
  /** Until all of it is on its way. */
  finish(): Promise<void>;
}

const RECEIVE_BYTES = 1 << 20;
/** In front of what is received, for the record that was not whole: a page, most often. */
const HEADROOM_BYTES = 8 << 10;
/** What comes between two looks at Ctrl-C and the progress bar. */
const TURN_BYTES = 16 << 20;
/** What came before is being compressed meanwhile, and its Workers want more. */
const SLICE_MS = 1;
/** What a look at the stream costs is little, and for so long the VM may stand still unseen. */
const LOOK_MS = 1;
/** MIG_RP_MSG_SHUT (1) of 4 bytes, value 0: the destination has all of it and is well. */
const SHUT_MESSAGE = [0, 1, 0, 4, 0, 0, 0, 0];

/**
 * QEMU's outgoing migration into a socket of ours. When the socket closes before `shut`, whoever closes it (vhu that
 * dies, too), QEMU goes back to the run state that it had.
 */
export class OutgoingStream implements Disposable {
  readonly #client: QmpClient;
  readonly #socket: UnixSocket;
  /** What `migrate` is told; undefined where it was called. */
  readonly #uri: string | undefined;
  readonly #buffer = new NativeBuffer(HEADROOM_BYTES + RECEIVE_BYTES);

  private constructor(client: QmpClient, socket: UnixSocket, uri: string | undefined) {
    this.#client = client;
    this.#socket = socket;
    this.#uri = uri;
  }

  static async open(client: QmpClient): Promise<OutgoingStream> {
    const { socket, uri } = await giveStreamSocket(client);
    return new OutgoingStream(client, socket, uri);
  }

  /** Of a migration that has begun, and whose pages go through channels of their own. */
  static over(client: QmpClient, socket: UnixSocket): OutgoingStream {
    return new OutgoingStream(client, socket, undefined);
  }

  /**
   * Starts the migration and reads it to the end of its description, where QEMU waits for an answer, its VM stopped.
   * @throws PeerError when QEMU gives up or is silent, FormatError, CompatibilityError
   */
  async read(collector: MemoryCollector, { signal, onProgress }: MoveOptions = {}): Promise<ParsedStream> {
    if (this.#uri !== undefined) {
      await this.#client.request("migrate", { answer: qmpNothing, arguments: { uri: this.#uri }, signal });
    }
    const parser = new StreamParser(collector);
    let sinceTurn = 0;
    for (;;) {
      const count = this.#receive();
      if (count === 0) {
        // Without a way back, QEMU closes when it is done.
        const parsed = parser.complete();
        if (parsed !== undefined) return parsed;
        throw await migrationError(this.#client, "QEMU ended the stream early");
      }
      if (count !== WOULD_BLOCK) {
        const received = this.#buffer.bytes.subarray(HEADROOM_BYTES, HEADROOM_BYTES + count);
        parser.push(received, HEADROOM_BYTES);
        await collector.ready();
        sinceTurn += count;
        if (sinceTurn < TURN_BYTES) continue;
        sinceTurn = 0;
        // Pages that come again were counted before.
        const done = Math.min(collector.doneBytes, collector.totalBytes);
        onProgress?.({ phase: "memory", done, total: collector.totalBytes });
        await eventLoopTurn();
        signal?.throwIfAborted();
        continue;
      }
      const parsed = parser.complete();
      if (parsed !== undefined) return parsed;
      if (this.#uri === undefined) await this.#look(collector, signal, onProgress);
      else await this.#wait(signal);
    }
  }

  /** Tells QEMU that the state arrived: it is done with the VM. */
  shut(): void {
    const message = new NativeBuffer(SHUT_MESSAGE.length);
    message.bytes.set(SHUT_MESSAGE);
    this.#socket.send(message, 0, message.sizeBytes);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #receive(): number {
    const fds: Fd[] = [];
    const count = this.#socket.receive(this.#buffer, HEADROOM_BYTES, RECEIVE_BYTES, fds, true);
    disposeAll(fds);
    return count;
  }

  /** While little comes here: this thread has what the channels bring to send, and must not stand in a system call. */
  async #look(
    { doneBytes, totalBytes }: MemoryCollector,
    signal: AbortSignal | undefined,
    onProgress: MoveOptions["onProgress"],
  ): Promise<void> {
    onProgress?.({ phase: "memory", done: Math.min(doneBytes, totalBytes), total: totalBytes });
    await Bun.sleep(LOOK_MS);
    signal?.throwIfAborted();
  }

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    const deadline = new Deadline(DEFAULT_TRANSFER_IDLE_TIMEOUT_MS);
    if ((await waitReady(this.#socket.fd, POLL.IN, deadline, signal, SLICE_MS)) !== 0) return;
    throw new PeerError(
      `QEMU sent nothing for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms, in the middle of its stream`,
    );
  }
}
