import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError } from "../../src/errors.ts";
import { NbdDecoder, type NbdEvent, type NbdRequest, nbdGreeting, nbdReply } from "./nbd-decoder.ts";

/** What is written to it goes somewhere else; nothing can be read back. */
export interface NbdExport {
  readonly sizeBytes: number;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  zero(offset: number, sizeBytes: number): Promise<void>;
}

/** Bytes of writes that have not gone on; then the client waits. */
const MAX_WAITING_BYTES = 64 << 20;
const EIO = 5;

/**
 * An NBD server at a socket in a folder of its own, for one process of this host that writes disks. A request is answered when
 * its bytes have gone on; a flush means no more than that.
 */
export class NbdServer implements Disposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #exports: ReadonlyMap<string, NbdExport>;
  /** The first thing that went wrong. */
  failure: Error | undefined;

  private constructor(
    readonly folder: string,
    exports: ReadonlyMap<string, NbdExport>,
  ) {
    this.#exports = exports;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  get path(): string {
    return join(this.folder, "nbd.sock");
  }

  /** @param user Whose process the client is, where that is another user's. */
  static async listen(
    exports: ReadonlyMap<string, NbdExport>,
    user?: { readonly uid: number; readonly gid: number },
  ): Promise<NbdServer> {
    const server = new NbdServer(mkdtempSync(join(tmpdir(), "vhu-nbd-")), exports);
    try {
      await new Promise<void>((resolve, reject) => {
        server.#server.once("error", reject);
        server.#server.listen(server.path, resolve);
      });
      if (user !== undefined && user.uid !== process.getuid?.()) {
        for (const path of [server.path, server.folder]) chownSync(path, user.uid, user.gid);
      }
      return server;
    } catch (error) {
      server[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    const sizes = new Map([...this.#exports].map(([name, { sizeBytes }]) => [name, sizeBytes]));
    const decoder = new NbdDecoder(sizes);
    let waitingBytes = 0;
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("error", () => socket.destroy());
    const take = (event: NbdEvent) => {
      if (event.kind === "reply") return void socket.write(event.bytes);
      if (event.kind === "end") return void socket.end();
      const { request } = event;
      const bytes = request.type === "write" ? request.bytes.length : 0;
      waitingBytes += bytes;
      if (waitingBytes > MAX_WAITING_BYTES) socket.pause();
      void this.#perform(event.exportName, request).then((error) => {
        waitingBytes -= bytes;
        if (waitingBytes <= MAX_WAITING_BYTES) socket.resume();
        if (!socket.destroyed) socket.write(nbdReply(request.handle, error));
      });
    };
    socket.on("data", (bytes: Uint8Array) => {
      try {
        for (const event of decoder.push(bytes)) take(event);
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        this.failure ??= error;
        socket.destroy();
      }
    });
    socket.write(nbdGreeting());
  }

  /** Returns the errno of the answer. */
  async #perform(name: string, request: NbdRequest): Promise<number> {
    const target = this.#exports.get(name) as NbdExport;
    try {
      if (request.type === "write") await target.write(request.offset, request.bytes);
      else if (request.type === "zero") await target.zero(request.offset, request.sizeBytes);
      return 0;
    } catch (error) {
      this.failure ??= error as Error;
      return EIO;
    }
  }
}
