import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Deadline, type Fd, NativeBuffer, UnixListener, type UnixSocket } from "../../../src/sys/mod.ts";

const TIMEOUT_MS = 20_000;

export const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "p"}, "capabilities": ["oob"]}}\n';

/** A monitor that says what a test wants, for what no real QEMU sends. */
export class ScriptedMonitor implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "vhu-qmp-"));
  readonly path = join(this.#folder, "qmp");
  readonly #listener = UnixListener.listen(this.path);
  readonly #buffer = new NativeBuffer(65536);
  readonly fds: Fd[] = [];
  #socket: UnixSocket | undefined;
  #text = "";

  accept(): void {
    this.#socket = this.#listener.acceptBefore(new Deadline(TIMEOUT_MS));
    if (this.#socket === undefined) throw new Error("nobody connected");
  }

  say(text: string): void {
    const bytes = new TextEncoder().encode(text);
    const buffer = new NativeBuffer(bytes.length);
    buffer.bytes.set(bytes);
    for (let sent = 0; sent < bytes.length; ) sent += this.#socket!.send(buffer, sent, bytes.length - sent);
  }

  /** The next request that has come. */
  hear(): {
    readonly execute?: string;
    readonly "exec-oob"?: string;
    readonly id: string;
    arguments?: unknown;
  } {
    this.#socket!.setTimeouts({ receiveMs: TIMEOUT_MS });
    while (!this.#text.includes("\n")) {
      const count = this.#socket!.receive(this.#buffer, 0, 65536, this.fds);
      if (count <= 0) throw new Error("the client hung up or is silent");
      this.#text += new TextDecoder().decode(this.#buffer.bytes.subarray(0, count));
    }
    const end = this.#text.indexOf("\n");
    const line = this.#text.slice(0, end);
    this.#text = this.#text.slice(end + 1);
    return JSON.parse(line);
  }

  hangUp(): void {
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
  }

  [Symbol.dispose](): void {
    this.hangUp();
    for (const fd of this.fds) fd[Symbol.dispose]();
    this.#listener[Symbol.dispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
