import { FormatError } from "../../src/errors.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A name in a stream. It may hold anything that is text, "../" too: it is only ever compared and shown. @throws FormatError */
export function readString(bytes: Uint8Array, what: string, offset: number): string {
  try {
    return decoder.decode(bytes);
  } catch (cause) {
    throw new FormatError(`${what} is no text`, "QEMU stream", offset, { cause });
  }
}
