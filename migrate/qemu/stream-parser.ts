import { CompatibilityError, FormatError } from "../../src/errors.ts";
import { checkSections, type StreamSection } from "./stream-devices.ts";
import {
  COMMAND,
  FOOTER_BYTES,
  RAM_FLAG,
  RAM_SECTION_NAME,
  RAM_SECTION_VERSION,
  type RamBlock,
  SECTION,
  STREAM_MAGIC,
  STREAM_VERSION,
  TARGET_PAGE_BYTES,
} from "./stream-format.ts";
import { NEED_MORE, StreamInput } from "./stream-input.ts";
import { RamReader, type RamSink } from "./stream-ram.ts";
import { StreamRest } from "./stream-rest.ts";
import { readString } from "./stream-string.ts";
import { findVmdesc, type Vmdesc } from "./vmdesc.ts";

/** What a stream holds beside memory. */
export interface ParsedStream {
  /** The versioned machine type, e.g. "pc-q35-10.0". */
  readonly machineType: string;
  readonly blocks: readonly RamBlock[];
  /** All but the pages: itself a stream, of which no page was sent. */
  readonly rest: Uint8Array;
  /** Where the pages belong, from the start of `rest`: before the END section of the memory. */
  readonly pagesOffset: number;
  readonly ramSectionId: number;
  readonly sections: readonly StreamSection[];
  readonly vmdesc: Vmdesc;
}

type Phase = "header" | "configuration" | "sections" | "ram" | "footer" | "devices";

const MAX_MACHINE_NAME_BYTES = 255;
const MAX_COMMAND_BYTES = 4096;

/**
 * Reads QEMU's migration stream as it comes, in any cut: pages go to the sink, everything else is kept byte for byte.
 * Device sections have no lengths, so they end where the description at the very end says; `complete` looks for it.
 *
 * @example
 * const parser = new StreamParser(sink);
 * for await (const bytes of source) parser.push(bytes);
 * const { machineType, sections } = parser.finish();
 */
export class StreamParser {
  readonly #input = new StreamInput();
  readonly #rest = new StreamRest();
  readonly #sink: RamSink;
  readonly #ram: RamReader;
  #phase: Phase = "header";
  #machineType = "";
  #ramSectionId: number | undefined;
  /** Of the section that is open: its type. */
  #openType = 0;
  #pagesOffset: number | undefined;
  #devicesOffset = 0;
  #parsed: ParsedStream | undefined;

  constructor(sink: RamSink) {
    this.#sink = sink;
    this.#ram = new RamReader(sink);
  }

  /**
   * @param headroomBytes What may be overwritten in front of `bytes`: with it, they are read where they are.
   * @throws FormatError, CompatibilityError for a stream of a kind that cannot be taken apart
   */
  push(bytes: Uint8Array, headroomBytes = 0): void {
    if (this.#parsed !== undefined) throw new FormatError("bytes come after the end", "QEMU stream");
    this.#input.push(bytes, headroomBytes);
    try {
      while (this.#input.pendingBytes > 0) this.#step();
    } catch (error) {
      if (error !== NEED_MORE) throw error;
      this.#input.rewind();
    }
    this.#input.release();
  }

  /** Whether memory is over and the state of the devices has begun. */
  get isInDevices(): boolean {
    return this.#phase === "devices";
  }

  /** The stream, if what has come ends as one; undefined while more must come. Costs a look at the last bytes. */
  complete(): ParsedStream | undefined {
    if (this.#parsed !== undefined) return this.#parsed;
    if (this.#phase !== "devices") return undefined;
    const rest = this.#rest.bytes;
    const end = findVmdesc(rest, this.#devicesOffset);
    if (end === undefined) return undefined;
    const sections = checkSections(rest.subarray(0, end.offset), this.#devicesOffset, end.vmdesc);
    const { blocks } = this.#ram;
    if (blocks === undefined || this.#pagesOffset === undefined || this.#ramSectionId === undefined) {
      throw new FormatError("the stream has no memory", "QEMU stream");
    }
    this.#parsed = {
      machineType: this.#machineType,
      blocks,
      rest,
      pagesOffset: this.#pagesOffset,
      ramSectionId: this.#ramSectionId,
      sections,
      vmdesc: end.vmdesc,
    };
    return this.#parsed;
  }

  /** After the last byte. @throws FormatError when the stream was cut off */
  finish(): ParsedStream {
    const parsed = this.complete();
    if (parsed !== undefined) return parsed;
    throw new FormatError(
      "the stream was cut off, or has no description of its devices",
      "QEMU stream",
      this.#input.offset,
    );
  }

  #step(): void {
    const isKept = this.#readRecord();
    const record = this.#input.commit();
    if (isKept) this.#rest.append(record);
  }

  /** One record of the phase; whether it belongs to the rest. */
  #readRecord(): boolean {
    switch (this.#phase) {
      case "header":
        this.#readHeader();
        return true;
      case "configuration":
      case "sections":
        return this.#readSection();
      case "ram":
        return this.#readRam();
      case "footer":
        return this.#readFooter();
      case "devices":
        this.#input.takeRest();
        return true;
    }
  }

  #readHeader(): void {
    const [magic, version] = [this.#input.u32(), this.#input.u32()];
    if (magic !== STREAM_MAGIC)
      throw new FormatError("this is not a QEMU migration stream", "QEMU stream", 0);
    if (version !== STREAM_VERSION) {
      throw new CompatibilityError(`QEMU's stream version ${version} is not known: ${STREAM_VERSION} is`);
    }
    this.#phase = "configuration";
  }

  #readSection(): boolean {
    const type = this.#input.u8();
    if (
      (this.#phase === "configuration") !==
      (type === SECTION.configuration || type === SECTION.subsection)
    ) {
      if (this.#machineType === "") this.#fail(`section type ${type} comes where the configuration belongs`);
      this.#phase = "sections";
    }
    switch (type) {
      case SECTION.configuration:
        this.#readConfiguration();
        return true;
      case SECTION.subsection:
        this.#readSubsection();
        return true;
      case SECTION.command:
        this.#readCommand();
        return true;
      case SECTION.start:
      case SECTION.part:
      case SECTION.end:
        return this.#openRam(type);
      case SECTION.full:
        return this.#beginDevices();
      default:
        return this.#fail(`section type ${type} is not known here`);
    }
  }

  #readConfiguration(): void {
    if (this.#machineType !== "") this.#fail("the configuration comes twice");
    const length = this.#input.u32();
    if (length === 0 || length > MAX_MACHINE_NAME_BYTES) this.#fail(`a machine type of ${length} bytes`);
    this.#machineType = readString(this.#input.take(length), "the machine type", this.#input.offset);
  }

  /** Of the configuration: what changes how the rest is read. */
  #readSubsection(): void {
    if (this.#phase !== "configuration") this.#fail("a subsection comes outside the configuration");
    const name = this.#input.string("a subsection's name");
    this.#input.u32();
    if (name === "configuration/target-page-bits") {
      const sizeBytes = 2 ** this.#input.u32();
      if (sizeBytes === TARGET_PAGE_BYTES) return;
      throw new CompatibilityError(
        `memory pages of ${sizeBytes} bytes are not supported, ${TARGET_PAGE_BYTES} are`,
      );
    }
    if (name === "configuration/uuid") {
      this.#input.take(16);
      return;
    }
    throw new CompatibilityError(
      `the stream was made with "${name}": switch validated capabilities off (x-ignore-shared, mapped-ram) and save again`,
    );
  }

  #readCommand(): void {
    const [command, length] = [this.#input.u16(), this.#input.u16()];
    if (!(Object.values(COMMAND) as number[]).includes(command)) {
      throw new CompatibilityError(
        `the stream has the command ${command} (post-copy, COLO): it cannot be taken apart`,
      );
    }
    if (length > MAX_COMMAND_BYTES) this.#fail(`a command of ${length} bytes`);
    this.#input.take(length);
  }

  #openRam(type: number): boolean {
    const sectionId = this.#input.u32();
    if (type === SECTION.start) {
      const name = this.#input.string("a section's name");
      const [, version] = [this.#input.u32(), this.#input.u32()];
      if (name !== RAM_SECTION_NAME) {
        throw new CompatibilityError(`the device "${name}" moves while the VM runs: that cannot be saved`);
      }
      if (version !== RAM_SECTION_VERSION)
        this.#fail(`memory in version ${version}, not ${RAM_SECTION_VERSION}`);
      if (this.#ramSectionId !== undefined) this.#fail("memory begins twice");
    } else if (sectionId !== this.#ramSectionId || this.#pagesOffset !== undefined) {
      this.#fail(`section ${sectionId} goes on, but is not open`);
    }
    this.#ramSectionId = sectionId;
    this.#openType = type;
    if (type === SECTION.end) {
      this.#pagesOffset = this.#rest.sizeBytes;
      // QEMU stops the VM, and waits for its devices, before it ends the memory (migration_completion).
      this.#sink.standsStill?.();
    }
    this.#phase = "ram";
    return type !== SECTION.part;
  }

  #readRam(): boolean {
    const record = this.#ram.read(this.#input);
    if (record === "blocks" && this.#openType !== SECTION.start) this.#fail("the memory blocks come late");
    if (record === "end") this.#phase = "footer";
    // Kept is what a stream without channels has.
    return record !== "page" && record !== "flush" && this.#openType !== SECTION.part;
  }

  #readFooter(): boolean {
    const [type, sectionId] = [this.#input.u8(), this.#input.u32()];
    if (type !== SECTION.footer || sectionId !== this.#ramSectionId)
      this.#fail("the memory section has no footer");
    this.#phase = "sections";
    return this.#openType !== SECTION.part;
  }

  #beginDevices(): boolean {
    // A background snapshot's memory has no end of its own: with one, it is a stream as any other.
    if (this.#openType === SECTION.part && this.#pagesOffset === undefined) {
      this.#pagesOffset = this.#rest.sizeBytes;
      this.#rest.append(emptyEnd(this.#ramSectionId as number));
    }
    if (this.#pagesOffset === undefined) {
      const [, name] = [this.#input.u32(), this.#input.string("a section's name")];
      throw new CompatibilityError(
        `the device "${name}" is saved before memory (virtio-mem): that is not supported`,
      );
    }
    this.#devicesOffset = this.#rest.sizeBytes;
    this.#phase = "devices";
    this.#input.takeRest();
    return true;
  }

  #fail(message: string): never {
    throw new FormatError(message, "QEMU stream", this.#input.offset);
  }
}

/** The end of the memory's section, without a page. */
function emptyEnd(sectionId: number): Uint8Array {
  const bytes = new Uint8Array(5 + 8 + FOOTER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, SECTION.end);
  view.setUint32(1, sectionId);
  view.setBigUint64(5, BigInt(RAM_FLAG.endOfSection));
  view.setUint8(13, SECTION.footer);
  view.setUint32(14, sectionId);
  return bytes;
}
