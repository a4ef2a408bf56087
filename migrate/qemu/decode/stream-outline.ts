import { FormatError } from "../../../src/errors.ts";
import { MAX_STREAM_CAPABILITIES } from "../../../src/limits.ts";
import { SECTION } from "../stream-format.ts";
import { readString } from "../stream-string.ts";
import { ByteReader } from "./byte-reader.ts";

/** A part of a stream before its first section. */
export interface OutlinePart {
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface ConfigurationPart extends OutlinePart {
  /** Undefined for the machine type, which comes first. */
  readonly name: string | undefined;
  readonly content: Uint8Array;
}

export interface CommandPart extends OutlinePart {
  readonly command: number;
  readonly content: Uint8Array;
}

/** What stands in a stream before its memory. */
export interface StreamOutline {
  readonly configuration: readonly ConfigurationPart[];
  readonly commands: readonly CommandPart[];
  /** Of the first section, which is the memory's. */
  readonly sectionsOffset: number;
}

const HEADER_BYTES = 8;
const UUID_BYTES = 16;

/**
 * Walks the start of a stream.
 *
 * @param bytes From the header on; what follows the outline is not looked at.
 * @throws FormatError where it is cut off, or has a part that is not known
 */
export function readOutline(bytes: Uint8Array): StreamOutline {
  const reader = new ByteReader(bytes, "QEMU stream");
  reader.take(HEADER_BYTES);
  const configuration: ConfigurationPart[] = [];
  const commands: CommandPart[] = [];
  for (;;) {
    const offset = reader.offset;
    const type = reader.peek();
    if (type !== SECTION.configuration && type !== SECTION.subsection && type !== SECTION.command) {
      return { configuration, commands, sectionsOffset: offset };
    }
    reader.u8();
    if (type === SECTION.command) {
      const command = reader.u16();
      const content = reader.take(reader.u16());
      commands.push({ offset, sizeBytes: reader.offset - offset, command, content });
      continue;
    }
    const name = type === SECTION.configuration ? undefined : nameOf(reader);
    const content = name === undefined ? reader.take(reader.u32()) : subsectionContent(reader, name);
    configuration.push({ offset, sizeBytes: reader.offset - offset, name, content });
  }
}

function nameOf(reader: ByteReader): string {
  const offset = reader.offset;
  const name = readString(reader.take(reader.u8()), "a subsection's name", offset);
  reader.u32();
  return name;
}

function subsectionContent(reader: ByteReader, name: string): Uint8Array {
  switch (name) {
    case "configuration/target-page-bits":
      return reader.take(4);
    case "configuration/uuid":
      return reader.take(UUID_BYTES);
    case "configuration/capabilities":
      return capabilityBytes(reader);
    default:
      throw new FormatError(
        `the subsection ${JSON.stringify(name)} is not known`,
        "QEMU stream",
        reader.offset,
      );
  }
}

/** be32 count, then each as u8 length and name: without the count here. */
function capabilityBytes(reader: ByteReader): Uint8Array {
  const names: Uint8Array[] = [];
  const count = reader.u32();
  if (count > MAX_STREAM_CAPABILITIES) {
    throw new FormatError(`${count} capabilities are demanded`, "QEMU stream", reader.offset);
  }
  for (let left = count; left > 0; left -= 1) {
    const length = reader.u8();
    names.push(Buffer.concat([Buffer.of(length), reader.take(length)]));
  }
  return Buffer.concat(names);
}

/** The capabilities that both sides of a migration must have: the content of "configuration/capabilities". */
export function capabilityNames({ configuration }: StreamOutline): string[] {
  const part = configuration.find(({ name }) => name === "configuration/capabilities");
  if (part === undefined) return [];
  const reader = new ByteReader(part.content, "QEMU stream");
  const names: string[] = [];
  while (reader.remainingBytes > 0) {
    names.push(readString(reader.take(reader.u8()), "a capability", part.offset));
  }
  return names;
}
