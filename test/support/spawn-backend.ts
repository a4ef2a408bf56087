import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connectUnix, type UnixSocket } from "../../src/sys/mod.ts";

export interface BackendProcessOptions {
  /** Hold requests and complete them out of order. */
  readonly slow?: boolean;
  /** Bytes of the bulk section of the device's state. */
  readonly bulkBytes?: number;
}

export interface SessionReport {
  readonly end: "disconnected" | "failed";
  readonly messages: readonly string[];
  /** Bulk bytes of the last state that was loaded. */
  readonly received: number;
}

/** A back-end in a process of its own, with a folder for its socket; both are gone when it is disposed of. */
export class SpawnedBackend implements Disposable {
  readonly #lines: AsyncIterator<string>;

  private constructor(
    readonly folder: string,
    readonly process: Bun.Subprocess<"ignore", "pipe", "inherit">,
  ) {
    this.#lines = linesOf(process.stdout);
  }

  static async start(options: BackendProcessOptions = {}): Promise<SpawnedBackend> {
    const folder = mkdtempSync(join(tmpdir(), "vhu-backend-"));
    const script = join(import.meta.dirname, "backend-process.ts");
    const child = Bun.spawn([process.execPath, script, join(folder, "socket"), JSON.stringify(options)], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    });
    const backend = new SpawnedBackend(folder, child);
    const first = await backend.#line();
    if (first !== "ready") throw new Error(`the back-end process did not start: ${first}`);
    return backend;
  }

  get path(): string {
    return join(this.folder, "socket");
  }

  connect(): UnixSocket {
    return connectUnix(this.path);
  }

  /** What the process says at the end of a session. */
  async report(): Promise<SessionReport> {
    return JSON.parse(await this.#line()) as SessionReport;
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
  }

  [Symbol.dispose](): void {
    this.process.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done)
      throw new Error(`the back-end process ended (${this.process.exitCode ?? this.process.signalCode})`);
    return value;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of stream.pipeThrough(
    new TextDecoderStream() as never,
  ) as unknown as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}
