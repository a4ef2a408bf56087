import type {
  DeviceQueue,
  DeviceRestore,
  FrontendClient,
  QueueRunner,
  VhostUserDevice,
} from "../../src/backend/mod.ts";
import { CompatibilityError, StateError, SyscallError, UsageError } from "../../src/errors.ts";
import { MAX_QUEUES } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { errnoName, ioUringObstacle, syncData } from "../../src/sys/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";
import { ObjectState } from "../state/mod.ts";
import { ChangeMap } from "./change-map.ts";
import { blkFeature, encodeBlkConfig, WRITEBACK_OFFSET } from "./config.ts";
import type { DiskImage } from "./disk-image.ts";
import { FailureLog } from "./failure-log.ts";
import { ImageLock } from "./image-lock.ts";
import { RequestProcessor } from "./request-processor.ts";
import { RequestReader } from "./request-reader.ts";
import type { BlkDataPath, BlkRunnerParameters } from "./ring-program.ts";
import { ID_BYTES, SharedSettings } from "./shared-settings.ts";
import { BLK_STATE_VERSION, type BlkState, checkBlkState } from "./state.ts";

/** How ring Workers read and write; "auto": "mixed" where io_uring is allowed and the image is not in memory, else "sync". */
export type BlkIo = "auto" | BlkDataPath;

export interface BlkOptions {
  /** What GET_ID answers (a disk's serial number), at most 20 bytes. Default: empty, or what a restored state says. */
  readonly id?: string | undefined;
  /** Request queues, 1 to 256; default 1. */
  readonly numQueues?: number | undefined;
  /** Default "auto". Of no meaning where the queues do not run in Workers: that is always "sync". */
  readonly io?: BlkIo | undefined;
  /** Lock the image while rings run; default true. */
  readonly lock?: boolean | undefined;
  readonly logger?: Logger | undefined;
}

/**
 * A virtio block device on a raw image. In ring Workers it has many requests in flight, by io_uring; without Workers they are
 * served in line and in order.
 *
 * @example
 * const device = new BlkDevice(DiskImage.open("disk.raw"), { id: "disk-1" });
 */
export class BlkDevice implements VhostUserDevice, Disposable {
  readonly deviceType = "blk";
  readonly maxQueues: number;
  readonly features: bigint;
  readonly protocolFeatures = protocolFeature.CONFIG | protocolFeature.BACKEND_REQ;
  readonly stateVersion = BLK_STATE_VERSION;
  readonly oldestCompatibleStateVersion = 1;
  readonly ringProgram = new URL("./ring-program.ts", import.meta.url);
  /** How its queues read and write in ring Workers. */
  readonly io: BlkDataPath;
  /** What is written, for a copy that is made meanwhile. */
  readonly changes: ChangeMap;
  readonly #settings = new SharedSettings();
  readonly #lock: ImageLock | undefined;
  readonly #requests: RequestProcessor;
  readonly #logger: Logger;
  readonly #state: ObjectState<BlkState>;
  readonly #configuredId: string | undefined;
  #id: string;
  #acked = 0n;
  #writeback = true;
  #frontend: FrontendClient | undefined;

  /** Takes the image. @throws UsageError; StateError when there is to be io_uring and is none */
  constructor(
    readonly image: DiskImage,
    options: BlkOptions = {},
  ) {
    const { id, numQueues = 1, logger = silentLogger } = options;
    checkOptions(id, numQueues);
    this.maxQueues = numQueues;
    this.io = chooseIo(options.io ?? "auto", image);
    this.#configuredId = id;
    this.#id = id ?? "";
    this.#logger = logger;
    this.#lock = (options.lock ?? true) ? new ImageLock(image.fd, image.path, image.readOnly) : undefined;
    const { SIZE_MAX, SEG_MAX, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES } =
      blkFeature;
    const ofAccess = image.readOnly ? RO : DISCARD | WRITE_ZEROES;
    this.features = SIZE_MAX | SEG_MAX | BLK_SIZE | FLUSH | TOPOLOGY | CONFIG_WCE | MQ | ofAccess;
    this.changes = new ChangeMap(image.capacityBytes);
    const log = new FailureLog(image.path, logger);
    this.#requests = new RequestProcessor(
      image,
      new RequestReader(image.readOnly, this.#settings, log, this.changes),
    );
    this.#settings.capacityBytes = image.capacityBytes;
    this.#share();
    this.#state = this.#makeState();
  }

  ackFeatures(features: bigint): void {
    this.#acked = features;
    this.#share();
  }

  readConfig(): Uint8Array {
    const { capacityBytes, blockBytes, physicalBlockBytes } = this.image;
    return encodeBlkConfig({
      capacityBytes,
      blockBytes,
      physicalBlockBytes,
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
    // Shared first: a write that is not durable by its own fdatasync was ended before this one's.
    this.#share();
    if (!this.#writeback) this.#flush("the write cache was turned off");
  }

  /** @throws StateError when another program uses the image */
  startQueue(queue: DeviceQueue): QueueRunner {
    this.#lock?.take();
    const process = this.#requests.serve.bind(this.#requests);
    return { onKick: () => queue.serve(process) };
  }

  /** @throws StateError when another program uses the image */
  startQueueInWorker(_index: number): BlkRunnerParameters {
    this.#lock?.take();
    const { buffered, direct, path, readOnly } = this.image;
    const files = { buffered: buffered.number, direct: direct?.number };
    return {
      files,
      path,
      readOnly,
      io: this.io,
      settings: this.#settings.buffer,
      changes: { capacityBytes: this.changes.capacityBytes, buffer: this.changes.buffer },
    };
  }

  stopQueue(_index: number): void {}

  reset(): void {
    this.#acked = 0n;
    this.#writeback = true;
    this.#share();
  }

  enterSuspendedState(): void {
    // Nothing is in flight now, so what is flushed is all there is.
    if (this.#flush("the device was suspended")) this.#settings.isDirty = false;
    this.#lock?.giveUp();
  }

  setBackendRequestConnection(client: FrontendClient | undefined): void {
    this.#frontend = client;
  }

  /** Looks at the image's size again, and tells the driver when it has changed. Returns whether it has. @throws UsageError */
  refreshCapacity(): boolean {
    if (!this.image.refreshCapacity()) return false;
    const { capacityBytes, path } = this.image;
    this.#settings.capacityBytes = capacityBytes;
    this.#logger.info(`${path} has another size now`, { capacityBytes });
    this.#frontend?.configChange();
    return true;
  }

  /** @throws SyscallError when what was written cannot be made durable: a snapshot would promise what is not there */
  *snapshot(): Generator<StateSection, void> {
    const result = this.#settings.isDirty ? syncData(this.image.buffered) : 0;
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

  /** Tells those who serve requests. */
  #share(): void {
    this.#settings.writeThrough = this.#writeThrough;
    this.#settings.writeId(this.#id);
  }

  /** Returns true when everything that was written is durable. */
  #flush(occasion: string): boolean {
    if (!this.#settings.isDirty) return true;
    const result = syncData(this.image.buffered);
    if (result < 0)
      this.#logger.error(`${this.image.path}: flush failed when ${occasion}: ${errnoName(-result)}`);
    return result === 0;
  }

  #makeState(): ObjectState<BlkState> {
    return new ObjectState({
      deviceType: this.deviceType,
      version: BLK_STATE_VERSION,
      capture: () => this.#capture(),
      check: (fields) => checkBlkState(fields, { ...this.#capture(), id: this.#configuredId }),
      apply: ({ id, writeback }) => {
        this.#id = id;
        this.#writeback = writeback;
        this.#share();
      },
    });
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

function checkOptions(id: string | undefined, numQueues: number): void {
  if (!Number.isInteger(numQueues) || numQueues < 1 || numQueues > MAX_QUEUES) {
    throw new UsageError(`a block device has 1 to ${MAX_QUEUES} queues, not ${numQueues}`);
  }
  if (id !== undefined && Buffer.byteLength(id) > ID_BYTES) {
    throw new UsageError(`the id "${id}" has more than ${ID_BYTES} bytes`);
  }
}

function chooseIo(io: BlkIo, image: DiskImage): BlkDataPath {
  if (io === "sync") return "sync";
  const obstacle = ioUringObstacle();
  if (io === "auto") return obstacle === undefined && !image.isInMemory ? "mixed" : "sync";
  if (obstacle !== undefined) throw new StateError(`there is no io_uring for --io ${io}: ${obstacle}`);
  return io;
}
