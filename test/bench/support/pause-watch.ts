import type { Socket } from "bun";

/** Listens to a monitor of its own for the times at which a VM stood still, by QEMU's clock. */
export class PauseWatch implements Disposable {
  #text = "";
  #stoppedMs: number | undefined;
  readonly pausesMs: number[] = [];
  #socket: Socket | undefined;

  static async connect(path: string): Promise<PauseWatch> {
    const watch = new PauseWatch();
    watch.#socket = await Bun.connect({
      unix: path,
      socket: { data: (_, bytes) => watch.#take(bytes.toString()) },
    });
    watch.#socket.write('{"execute":"qmp_capabilities"}\n');
    return watch;
  }

  [Symbol.dispose](): void {
    this.#socket?.end();
  }

  #take(text: string): void {
    const lines = (this.#text + text).split("\n");
    this.#text = lines.pop()!;
    for (const line of lines) {
      const { event, timestamp } = JSON.parse(line) as {
        event?: string;
        timestamp?: { seconds: number; microseconds: number };
      };
      if (timestamp === undefined) continue;
      const atMs = timestamp.seconds * 1000 + timestamp.microseconds / 1000;
      if (event === "STOP") this.#stoppedMs = atMs;
      if (event !== "RESUME" || this.#stoppedMs === undefined) continue;
      this.pausesMs.push(atMs - this.#stoppedMs);
      this.#stoppedMs = undefined;
    }
  }
}
