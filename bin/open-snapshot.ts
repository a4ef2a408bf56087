import { type OpenOptions, SnapshotReader } from "../migrate/snapshot/mod.ts";
import { parseAddressOf } from "./address.ts";

const STDIN = 0;

/** The snapshot that FILE on a command line means; "-" is read to its end first. @throws UsageError, FormatError */
export function openSnapshot(text: string, options: OpenOptions = {}): SnapshotReader {
  const source = parseAddressOf(text, "snapshot", ["file", "stdio"]);
  return source.kind === "file"
    ? SnapshotReader.open(source.path, options)
    : SnapshotReader.fromFd(STDIN, options);
}
