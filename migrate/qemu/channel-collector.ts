import { FormatError } from "../../src/errors.ts";
import type { UnixSocket } from "../../src/sys/mod.ts";
import type { VmSink } from "../driver.ts";
import type { PageChannels } from "../multifd/mod.ts";
import type { RamBlock } from "./stream-format.ts";
import type { RamSink } from "./stream-ram.ts";

/** The memory of a stream whose pages go through multifd channels, straight into the sink. */
export class ChannelCollector implements RamSink {
  readonly #sink: VmSink;
  readonly #channels: PageChannels;
  readonly #sockets: readonly UnixSocket[];
  #flushes = 0;
  #sections = 0;
  totalBytes = 0;

  /** @param sockets The sink's, once the blocks are known. */
  constructor(sink: VmSink, channels: PageChannels, sockets: readonly UnixSocket[]) {
    this.#sink = sink;
    this.#channels = channels;
    this.#sockets = sockets;
  }

  get doneBytes(): number {
    return this.#channels.doneBytes;
  }

  blocks(blocks: readonly RamBlock[]): void {
    this.totalBytes = blocks.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    this.#sink.writeMemoryMap(
      blocks.map(({ name, sizeBytes }, id) => ({ id, guestAddress: 0, sizeBytes, name })),
    );
    this.#channels.begin(this.#sockets);
  }

  /** @throws FormatError always */
  page(): never {
    throw new FormatError("a page comes in the stream, beside the multifd channels", "RAM");
  }

  zeroPage(): never {
    return this.page();
  }

  flush(): void {
    this.#flushes += 1;
  }

  sectionEnd(): void {
    this.#sections += 1;
  }

  async ready(): Promise<void> {}

  /** The stream says how often the channels were synchronised; machine types before 8.1 do so with each section. */
  async finish(): Promise<void> {
    await this.#channels.synchronised(this.#flushes > 0 ? this.#flushes : this.#sections);
  }
}
