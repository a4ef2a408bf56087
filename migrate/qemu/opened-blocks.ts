import { PeerError, StateError } from "../../src/errors.ts";
import { type Fd, Mapping } from "../../src/sys/mod.ts";
import type { MoveOptions, VmSink } from "../driver.ts";
import { saveMemory } from "../ram/mod.ts";
import { openMappedFile } from "./mapped-file.ts";
import { qmpStatus, qmpText } from "./qmp-answers.ts";
import type { QmpClient } from "./qmp-client.ts";
import { QmpError } from "./qmp-error.ts";
import { ramBlockPlaces } from "./ram-block-places.ts";
import { type RamBlock, TARGET_PAGE_BYTES } from "./stream-format.ts";

/** Of the pages that QEMU sends, one of so many is compared with the memory that was opened. */
const COMPARED_PAGES = 64;

interface OpenedBlock {
  readonly sizeBytes: number;
  readonly fd: Fd;
  readonly mapping: Mapping;
}

/**
 * The RAM blocks of a QEMU whose memory vhu has opened as well: a memfd, or a file in /dev/shm, that QEMU shares with its
 * back-ends. While the VM stands still, they are read where they are, on all processors, and what QEMU sends of them is
 * dropped: nothing is copied, and a page that the snapshot has already is found, since all of them stay in their place.
 */
export class OpenedBlocks implements Disposable {
  readonly #client: QmpClient;
  readonly #blocks: ReadonlyMap<string, OpenedBlock>;
  #seen = 0;
  #compared = 0;
  #different = 0;

  private constructor(client: QmpClient, blocks: ReadonlyMap<string, OpenedBlock>) {
    this.#client = client;
    this.#blocks = blocks;
  }

  /** Those of process `pid` that can be opened; none where it is not to be looked into. */
  static async open(client: QmpClient, pid: number | undefined): Promise<OpenedBlocks> {
    const blocks = new Map<string, OpenedBlock>();
    if (pid === undefined) return new OpenedBlocks(client, blocks);
    for (const { name, sizeBytes, address } of ramBlockPlaces(await ramBlocksText(client))) {
      const fd = openMappedFile(pid, address, sizeBytes);
      if (fd === undefined) continue;
      blocks.set(name, { sizeBytes, fd, mapping: Mapping.ofFd(fd, { sizeBytes, readOnly: true }) });
    }
    return new OpenedBlocks(client, blocks);
  }

  has({ name, sizeBytes }: RamBlock): boolean {
    return this.#blocks.get(name)?.sizeBytes === sizeBytes;
  }

  /** A page as QEMU sends it, of a VM that stands still. */
  compare({ name }: RamBlock, offset: number, bytes: Uint8Array): void {
    this.#seen += 1;
    if (this.#seen % COMPARED_PAGES !== 1) return;
    const { mapping } = this.#blocks.get(name) as OpenedBlock;
    const window = mapping.window(offset, TARGET_PAGE_BYTES);
    this.#compared += 1;
    if (Buffer.compare(new Uint8Array(window), bytes) !== 0) this.#different += 1;
    mapping.closeWindow(window);
  }

  /**
   * Gives all of their memory to `sink`. The VM stands still from before this until after `requireStill`.
   *
   * @param blocks Those of the stream; a block's number is its region's.
   */
  async save(sink: VmSink, blocks: readonly RamBlock[], options: MoveOptions): Promise<void> {
    let earlierBytes = 0;
    for (const [id, block] of blocks.entries()) {
      if (!this.has(block)) continue;
      const { fd, sizeBytes } = this.#blocks.get(block.name) as OpenedBlock;
      const onProgress: MoveOptions["onProgress"] = ({ phase, done, total }) =>
        options.onProgress?.({ phase, done: earlierBytes + done, total });
      await saveMemory(sink, id, fd, sizeBytes, { signal: options.signal, onProgress });
      earlierBytes += sizeBytes;
    }
  }

  /**
   * That what was read is the VM's memory, and that it did not run meanwhile: another client of QEMU's may have cancelled
   * the migration or let it go on.
   *
   * @throws StateError, PeerError
   */
  async requireStill(): Promise<void> {
    // A back-end that writes late may have changed single pages after QEMU has sent them.
    if (this.#different * 2 > this.#compared) {
      throw new PeerError("the memory that QEMU has open is not what it sends: please report this");
    }
    if (this.#blocks.size === 0) return;
    const { running } = await this.#client.request("query-status", { answer: qmpStatus });
    const hasRun = running || this.#client.takeEvents().some(({ name }) => name === "RESUME");
    if (hasRun) throw new StateError("somebody let the VM run while its memory was saved: save it again");
  }

  [Symbol.dispose](): void {
    for (const { fd, mapping } of this.#blocks.values()) {
      mapping[Symbol.dispose]();
      fd[Symbol.dispose]();
    }
  }
}

async function ramBlocksText(client: QmpClient): Promise<string> {
  try {
    const given = { "command-line": "info ramblock" };
    return await client.request("human-monitor-command", { answer: qmpText, arguments: given });
  } catch (error) {
    // A QEMU without a human monitor.
    if (error instanceof QmpError) return "";
    throw error;
  }
}
