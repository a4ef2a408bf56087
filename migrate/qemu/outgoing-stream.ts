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
import type { PageCollector } from "./page-collector.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";
import { type ParsedStream, StreamParser } from "./stream-parser.ts";

const RECEIVE_BYTES = 1 << 20;
/** In front of what is received, for the record that was not whole: a page, most often. */
const HEADROOM_BYTES = 8 << 10;
/** What comes between two looks at Ctrl-C and the progress bar. */
const TURN_BYTES = 16 << 20;
/** What came before is being compressed meanwhile, and its Workers want more. */
const SLICE_MS = 1;
/** MIG_RP_MSG_SHUT (1) of 4 bytes, value 0: the destination has all of it and is well. */
const SHUT_MESSAGE = [0, 1, 0, 4, 0, 0, 0, 0];

/**
 * QEMU's outgoing migration into a socket of ours. When the socket closes before `shut`, whoever closes it (vhu that
 * dies, too), QEMU goes back to the run state that it had.
 */
export class OutgoingStream implements Disposable {
  readonly #client: QmpClient;
  readonly #socket: UnixSocket;
  readonly #uri: string;
  readonly #buffer = new NativeBuffer(HEADROOM_BYTES + RECEIVE_BYTES);

  private constructor(client: QmpClient, socket: UnixSocket, uri: string) {
    this.#client = client;
    this.#socket = socket;
    this.#uri = uri;
  }

  static async open(client: QmpClient): Promise<OutgoingStream> {
    const { socket, uri } = await giveStreamSocket(client);
    return new OutgoingStream(client, socket, uri);
  }

  /**
   * Starts the migration and reads it to the end of its description, where QEMU waits for an answer, its VM stopped.
   * @throws PeerError when QEMU gives up or is silent, FormatError, CompatibilityError
   */
  async read(collector: PageCollector, { signal, onProgress }: MoveOptions = {}): Promise<ParsedStream> {
    await this.#client.request("migrate", { answer: qmpNothing, arguments: { uri: this.#uri }, signal });
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
      await this.#wait(signal);
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

  async #wait(signal: AbortSignal | undefined): Promise<void> {
    const deadline = new Deadline(DEFAULT_TRANSFER_IDLE_TIMEOUT_MS);
    if ((await waitReady(this.#socket.fd, POLL.IN, deadline, signal, SLICE_MS)) !== 0) return;
    throw new PeerError(
      `QEMU sent nothing for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms, in the middle of its stream`,
    );
  }
}
