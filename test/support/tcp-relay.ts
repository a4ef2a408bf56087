import { connect, createServer, type Server, type Socket } from "node:net";

export interface RelayOptions {
  readonly host: string;
  readonly port: number;
  /** Milliseconds that each piece takes in each direction. */
  readonly delayMs?: number;
}

/** A link of the tests' own between two ends of a TCP connection: it delays, cuts, and goes silent. */
export class TcpRelay implements Disposable {
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  /** Nothing passes, and nobody is told. */
  isSilent = false;
  /** New connections are closed at once. */
  isDown = false;
  connections = 0;
  passedBytes = 0;
  /** Called with each piece on its way to the far end. */
  onPiece: ((bytes: Buffer) => void) | undefined;

  private constructor(readonly options: RelayOptions) {
    this.#server = createServer((near) => this.#accept(near));
  }

  static async start(options: RelayOptions): Promise<TcpRelay> {
    const relay = new TcpRelay(options);
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  /** Every connection breaks. */
  cut(): void {
    for (const [near, far] of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.isDown = true;
    this.cut();
    this.#server.close();
  }

  #accept(near: Socket): void {
    near.on("error", () => {});
    if (this.isDown) return void near.destroy();
    this.connections += 1;
    const far = connect({ host: this.options.host, port: this.options.port });
    const pair = [near, far] as const;
    this.#pairs.add(pair);
    far.on("error", () => near.destroy());
    this.#pass(near, far, (bytes) => {
      this.passedBytes += bytes.length;
      this.onPiece?.(bytes);
    });
    this.#pass(far, near, () => {});
    for (const [socket, other] of [pair, [far, near]] as const) {
      socket.on("end", () => other.end());
      socket.on("close", () => {
        this.#pairs.delete(pair);
        other.destroy();
      });
    }
  }

  #pass(from: Socket, to: Socket, count: (bytes: Buffer) => void): void {
    const { delayMs = 0 } = this.options;
    from.on("data", (bytes: Buffer) => {
      if (this.isSilent) return;
      count(bytes);
      if (delayMs > 0) setTimeout(() => to.write(bytes), delayMs);
      else if (!to.write(bytes)) {
        from.pause();
        to.once("drain", () => from.resume());
      }
    });
  }
}
