import type { DeviceQueue, DeviceRestore, QueueRunner, VhostUserDevice } from "../../src/backend/mod.ts";
import { CompatibilityError, SyscallError, UsageError } from "../../src/errors.ts";
import { MAX_QUEUES } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { errnoName } from "../../src/sys/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";
import { ObjectState } from "../state/mod.ts";
import { blkFeature, encodeBlkConfig, WRITEBACK_OFFSET } from "./config.ts";
import type { DiskImage } from "./disk-image.ts";
import { ID_BYTES, RequestProcessor } from "./request.ts";
import { BLK_STATE_VERSION, type BlkState, checkBlkState } from "./state.ts";

export interface BlkOptions {
  /** What GET_ID answers (a disk's serial number), at most 20 bytes. Default: empty, or what a restored state says. */
  readonly id?: string | undefined;
  /** Request queues, 1 to 256; default 1. */
  readonly numQueues?: number | undefined;
  readonly logger?: Logger | undefined;
}

/**
 * A virtio block device on a raw image: read, write, flush, get-id. Requests are served in line and in order.
 *
 * @example
 * const device = new BlkDevice(DiskImage.open("disk.raw"), { id: "disk-1" });
 */
export class BlkDevice implements VhostUserDevice, Disposable {
  readonly deviceType = "blk";
  readonly maxQueues: number;
  readonly features: bigint;
  readonly protocolFeatures = protocolFeature.CONFIG;
  readonly stateVersion = BLK_STATE_VERSION;
  readonly oldestCompatibleStateVersion = 1;
  readonly #requests: RequestProcessor;
  readonly #logger: Logger;
  readonly #state: ObjectState<BlkState>;
  readonly #configuredId: string | undefined;
  #id: string;
  #acked = 0n;
  #writeback = true;

  /** Takes the image. @throws UsageError */
  constructor(
    readonly image: DiskImage,
    options: BlkOptions = {},
  ) {
    const { id, numQueues = 1, logger = silentLogger } = options;
    if (!Number.isInteger(numQueues) || numQueues < 1 || numQueues > MAX_QUEUES) {
      throw new UsageError(`a block device has 1 to ${MAX_QUEUES} queues, not ${numQueues}`);
    }
    if (id !== undefined && Buffer.byteLength(id) > ID_BYTES) {
      throw new UsageError(`the id "${id}" has more than ${ID_BYTES} bytes`);
    }
    this.maxQueues = numQueues;
    this.#configuredId = id;
    this.#id = id ?? "";
    this.#logger = logger;
    const { SEG_MAX, RO, BLK_SIZE, FLUSH, CONFIG_WCE, MQ } = blkFeature;
    this.features = SEG_MAX | BLK_SIZE | FLUSH | CONFIG_WCE | MQ | (image.readOnly ? RO : 0n);
    const settings = { id: "", writeThrough: false };
    this.#requests = new RequestProcessor(
      image,
      () => {
        settings.id = this.#id;
        settings.writeThrough = this.#writeThrough;
        return settings;
      },
      logger,
    );
    this.#state = new ObjectState({
      deviceType: this.deviceType,
      version: BLK_STATE_VERSION,
      capture: () => this.#capture(),
      check: (fields) => checkBlkState(fields, { ...this.#capture(), id: this.#configuredId }),
      apply: ({ id, writeback }) => {
        this.#id = id;
        this.#writeback = writeback;
      },
    });
  }

  ackFeatures(features: bigint): void {
    this.#acked = features;
  }

  readConfig(): Uint8Array {
    return encodeBlkConfig({
      capacityBytes: this.image.capacityBytes,
      writeback: this.#writeback,
      numQueues: this.maxQueues,
    });
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset !== WRITEBACK_OFFSET || bytes.length !== 1 || bytes[0]! > 1) {
      throw new CompatibilityError(
        "of a block device's config space only the byte `writeback` can be written, 0 or 1",
      );
    }
    this.#writeback = bytes[0] === 1;
    // What was acknowledged while the cache was on is durable once the driver has turned it off.
    if (!this.#writeback) this.#flush("the write cache was turned off");
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    const process = this.#requests.serve.bind(this.#requests);
    return { onKick: () => queue.serve(process) };
  }

  stopQueue(_index: number): void {}

  reset(): void {
    this.#acked = 0n;
    this.#writeback = true;
  }

  enterSuspendedState(): void {
    this.#flush("the device was suspended");
  }

  /** @throws SyscallError when what was written cannot be made durable: a snapshot would promise what is not there */
  *snapshot(): Generator<StateSection, void> {
    const result = this.#requests.isDirty ? this.#requests.flush() : 0;
    if (result < 0) throw new SyscallError("fdatasync", errnoName(-result), this.image.path);
    yield* this.#state.snapshot();
  }

  beginRestore(header: StateHeader): DeviceRestore {
    return this.#state.beginRestore(header);
  }

  [Symbol.dispose](): void {
    this.image[Symbol.dispose]();
  }

  /** Virtio 1.3, 5.2.5: with CONFIG_WCE the driver's byte decides, without it FLUSH means that there is a cache. */
  get #writeThrough(): boolean {
    if ((this.#acked & blkFeature.CONFIG_WCE) !== 0n) return !this.#writeback;
    return (this.#acked & blkFeature.FLUSH) === 0n;
  }

  #flush(occasion: string): void {
    if (!this.#requests.isDirty) return;
    const result = this.#requests.flush();
    if (result < 0)
      this.#logger.error(`${this.image.path}: flush failed when ${occasion}: ${errnoName(-result)}`);
  }

  #capture(): BlkState {
    return {
      capacityBytes: this.image.capacityBytes,
      readOnly: this.image.readOnly,
      numQueues: this.maxQueues,
      id: this.#id,
      writeback: this.#writeback,
    };
  }
}
