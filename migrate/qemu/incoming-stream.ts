import { PeerError } from "../../src/errors.ts";
import { DEFAULT_TRANSFER_IDLE_TIMEOUT_MS } from "../../src/limits.ts";
import {
  Deadline,
  eventLoopTurn,
  NativeBuffer,
  POLL,
  setNonBlocking,
  type UnixSocket,
  WOULD_BLOCK,
  waitReady,
} from "../../src/sys/mod.ts";
import type { MoveOptions } from "../driver.ts";
import { migrationError, waitForMigrationEnd } from "./migration-state.ts";
import { giveStreamSocket } from "./migration-stream.ts";
import type { QmpClient } from "./qmp-client.ts";
import { qmpNothing } from "./qmp-messages.ts";

/** The largest piece of a rebuilt stream, rounded up; larger ones go in several. */
const SEND_BYTES = 2 << 20;
/** How long QEMU may take once it has all of it: a back-end may still be loading its state. */
const END_TIMEOUT_MS = 120_000;

/** A stream into a QEMU that waits with `-incoming defer`. */
export class IncomingStream implements Disposable {
  readonly #client: QmpClient;
  readonly #socket: UnixSocket;
  readonly #buffer = new NativeBuffer(SEND_BYTES);

  private constructor(client: QmpClient, socket: UnixSocket) {
    this.#client = client;
    this.#socket = socket;
  }

  /** Into a QEMU that waits for its migration. From here on it cannot take another: one that fails has to be started anew. */
  static async begin(client: QmpClient): Promise<IncomingStream> {
    const { socket, uri } = await giveStreamSocket(client);
    using stack = new DisposableStack();
    stack.use(socket);
    const given = { uri, "exit-on-error": false };
    await client.request("migrate-incoming", { answer: qmpNothing, arguments: given });
    stack.move();
    return IncomingStream.over(client, socket);
  }

  /** Into a QEMU that has the other end of the socket, and reads from it. */
  static over(client: QmpClient, socket: UnixSocket): IncomingStream {
    setNonBlocking(socket.fd);
    return new IncomingStream(client, socket);
  }

  /**
   * Sends all pieces and waits until QEMU has loaded them. A piece that fails its checksum ends it: the socket closes,
   * and QEMU never runs what came so far.
   * @throws PeerError with QEMU's reason
   */
  async send(pieces: Iterable<Uint8Array>, totalBytes: number, options: MoveOptions = {}): Promise<void> {
    let done = 0;
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; at += SEND_BYTES) {
        await this.#sendPiece(piece.subarray(at, at + SEND_BYTES), options.signal);
      }
      done += piece.length;
      options.onProgress?.({ phase: "memory", done: Math.min(done, totalBytes), total: totalBytes });
      await eventLoopTurn();
      options.signal?.throwIfAborted();
    }
    const status = await waitForMigrationEnd(this.#client, END_TIMEOUT_MS);
    if (status !== "completed") throw await migrationError(this.#client, "QEMU could not load the VM");
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  async #sendPiece(piece: Uint8Array, signal: AbortSignal | undefined): Promise<void> {
    this.#buffer.bytes.set(piece);
    for (let sent = 0; sent < piece.length; ) {
      const count = await this.#sendSome(sent, piece.length - sent);
      if (count !== WOULD_BLOCK) {
        sent += count;
        continue;
      }
      const deadline = new Deadline(DEFAULT_TRANSFER_IDLE_TIMEOUT_MS);
      if ((await waitReady(this.#socket.fd, POLL.OUT, deadline, signal)) !== 0) continue;
      throw new PeerError(`QEMU took nothing of the stream for ${DEFAULT_TRANSFER_IDLE_TIMEOUT_MS} ms`);
    }
  }

  async #sendSome(offset: number, sizeBytes: number): Promise<number> {
    try {
      return this.#socket.send(this.#buffer, offset, sizeBytes);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      throw await migrationError(this.#client, "QEMU refused the stream");
    }
  }
}
