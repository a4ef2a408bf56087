import { FormatError } from "../../src/errors.ts";
import { MAX_QEMU_STREAM_BYTES } from "../../src/limits.ts";
import { type ParsedStream, StreamParser } from "./stream-parser.ts";

/** All of a QEMU stream that is not memory, as a snapshot keeps it, taken apart. @throws FormatError */
export function readRest(stream: Iterable<Uint8Array>): ParsedStream {
  const nothing = () => {
    throw new FormatError("the stream has pages of memory, which belong elsewhere", "qemuStream");
  };
  const parser = new StreamParser({ blocks: () => {}, page: nothing, zeroPage: nothing });
  let sizeBytes = 0;
  for (const chunk of stream) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_QEMU_STREAM_BYTES) throw new FormatError("it is too large", "qemuStream", sizeBytes);
    parser.push(chunk);
  }
  return parser.finish();
}
