import { Worker } from "node:worker_threads";
import { PeerError, StateError } from "../../src/errors.ts";
import type { UnixSocket } from "../../src/sys/mod.ts";
import type { PageChannels } from "../multifd/mod.ts";
import { MEMORY_PAGE_BYTES, type SnapshotRegion } from "../snapshot/mod.ts";
import {
  allocateChannelSlots,
  ChannelBarrier,
  type ChannelSetup,
  ChannelSlots,
  type ChannelStart,
  type ChannelWord,
} from "./channel-slots.ts";

export interface ChannelPoolOptions {
  readonly count: number;
  /** For each stream. */
  readonly cacheBytes: number;
  /** Sends a payload of so much memory; `waiting` are those that wait behind it. */
  readonly send: (stream: number, payload: Uint8Array, plainBytes: number, waiting: number) => Promise<void>;
  /** Between two passes, where there are several streams. */
  readonly endPass: (stream: number) => Promise<void>;
  readonly level: () => number | undefined;
}

interface Channel {
  readonly stream: number;
  readonly worker: Worker;
  readonly slots: ChannelSlots;
  socket: UnixSocket | undefined;
  /** What was said before is done. */
  tail: Promise<void>;
  syncs: number;
  isEnded: boolean;
}

/** QEMU's channels, a Worker and a stream for each. */
export class ChannelPool implements PageChannels, Disposable {
  readonly #options: ChannelPoolOptions;
  readonly #channels: readonly Channel[];
  readonly #failed = new AbortController();
  #waiting: (() => void)[] = [];
  #regions: readonly SnapshotRegion[] = [];
  #isOver = false;
  doneBytes = 0;

  constructor(options: ChannelPoolOptions) {
    this.#options = options;
    const barrier = ChannelBarrier.allocate();
    this.#channels = Array.from({ length: options.count }, (_, index) => this.#channel(index + 1, barrier));
  }

  get count(): number {
    return this.#channels.length;
  }
  get signal(): AbortSignal {
    return this.#failed.signal;
  }

  /** The blocks that the channels name. */
  set regions(regions: readonly SnapshotRegion[]) {
    this.#regions = regions;
  }

  begin(sockets: readonly UnixSocket[]): void {
    const owners =
      this.count === 1
        ? []
        : this.#regions.map(({ sizeBytes }) => new SharedArrayBuffer(sizeBytes / MEMORY_PAGE_BYTES));
    for (const [index, channel] of this.#channels.entries()) {
      const socket = sockets[index] as UnixSocket;
      channel.socket = socket;
      const regions = this.#regions.map(({ id, name, sizeBytes }) => ({ id, name, sizeBytes }));
      const start: ChannelStart = { socket: socket.fd.number, regions, owners };
      channel.worker.postMessage(start);
    }
  }

  async synchronised(count: number): Promise<void> {
    while (this.#channels.some(({ syncs }) => syncs < count)) {
      this.signal.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    }
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    for (const { worker, slots, socket, isEnded } of this.#channels) {
      slots.stop();
      // The Worker may be reading from it, and closes nothing: what it reads from must stay what it is.
      if (socket === undefined || isEnded) void worker.terminate();
      else socket.shutdown();
      if (isEnded) socket?.[Symbol.dispose]();
    }
    this.#fail(new StateError("the channels were closed"));
  }

  #channel(stream: number, barrier: SharedArrayBuffer): Channel {
    const memory = allocateChannelSlots();
    const { count: channels, cacheBytes } = this.#options;
    const setup: ChannelSetup = { slots: memory, barrier, channels, stream, cacheBytes };
    const worker = new Worker(new URL("./channel-worker.ts", import.meta.url), { workerData: setup });
    worker.unref();
    const slots = new ChannelSlots(memory);
    slots.level = this.#options.level();
    const channel: Channel = {
      ...{ stream, worker, slots, socket: undefined },
      ...{ tail: Promise.resolve(), syncs: 0, isEnded: false },
    };
    worker.on("message", (word: ChannelWord) => {
      channel.tail = channel.tail.then(() => this.#hear(channel, word)).catch((error) => this.#fail(error));
    });
    worker.on("error", (cause) => this.#fail(new StateError("the Worker of a channel failed", { cause })));
    return channel;
  }

  async #hear(channel: Channel, word: ChannelWord): Promise<void> {
    const { slots, stream } = channel;
    switch (word.kind) {
      case "window":
        try {
          const payload = slots.room(word.slot).subarray(0, word.packedBytes);
          await this.#options.send(stream, payload, word.pages * MEMORY_PAGE_BYTES, slots.used - 1);
        } finally {
          slots.release(word.slot);
        }
        slots.level = this.#options.level();
        this.doneBytes += word.pages * MEMORY_PAGE_BYTES;
        return;
      case "nothing":
        this.doneBytes += word.pages * MEMORY_PAGE_BYTES;
        return;
      case "sync":
        if (this.count > 1) await this.#options.endPass(stream);
        channel.syncs += 1;
        return this.#wake();
      case "end":
        return this.#onEnd(channel, word.fault);
    }
  }

  /** QEMU closes its channels when it is done with all of the migration, or gives up. */
  #onEnd(channel: Channel, fault: string | undefined): void {
    channel.isEnded = true;
    channel.socket?.[Symbol.dispose]();
    void channel.worker.terminate();
    if (this.#isOver) return;
    this.#fail(new PeerError(fault ?? "QEMU closed a multifd channel"));
  }

  #fail(error: Error): void {
    if (!this.signal.aborted) this.#failed.abort(error);
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
