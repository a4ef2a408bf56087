import { FormatError } from "../../src/errors.ts";
import { MAX_QMP_MESSAGE_BYTES } from "../../src/limits.ts";

/** Cuts the bytes of a monitor into JSON messages: QEMU ends each with a line feed, and none is inside (QMP spec, 2.1). */
export class QmpLines {
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #pieces: Uint8Array[] = [];
  #pendingBytes = 0;

  /** Takes bytes in any cut; gives the messages that are whole. @throws FormatError */
  push(bytes: Uint8Array): unknown[] {
    const messages: unknown[] = [];
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(0x0a, start);
      if (end < 0) break;
      this.#keep(bytes.subarray(start, end));
      const message = this.#take();
      if (message !== undefined) messages.push(message);
      start = end + 1;
    }
    this.#keep(bytes.subarray(start));
    return messages;
  }

  #keep(bytes: Uint8Array): void {
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes > MAX_QMP_MESSAGE_BYTES) {
      throw new FormatError(`a message is longer than ${MAX_QMP_MESSAGE_BYTES} bytes`, "QMP", 0);
    }
    if (bytes.length > 0) this.#pieces.push(bytes.slice());
  }

  #take(): unknown {
    const line = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#pendingBytes = 0;
    try {
      const text = this.#decoder.decode(line).trim();
      return text === "" ? undefined : JSON.parse(text);
    } catch (cause) {
      throw new FormatError("what came from the monitor is not JSON", "QMP", 0, { cause });
    }
  }
}
