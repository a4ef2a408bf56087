import { PendingReply } from "../connection/mod.ts";
import { CompatibilityError, FormatError, ProtocolError, StateError, VhuError } from "../errors.ts";
import type { Logger } from "../logger.ts";
import { encodeState, StateDecoder, type StateHeader } from "../state/mod.ts";
import { createPipe, type EventLoop, type Fd } from "../sys/mod.ts";
import { describeFeatures, virtioFeature } from "../wire/mod.ts";
import type { StateDirection } from "./backend.ts";
import type { VhostUserDevice } from "./device.ts";
import { type SpoolOptions, StateSpool } from "./state-spool.ts";
import { IncomingPump, OutgoingPump } from "./stream-pump.ts";

export interface DeviceStateOptions {
  readonly spool?: SpoolOptions | undefined;
  /** How long a transfer may go without a byte. */
  readonly idleTimeoutMs?: number | undefined;
  /** "own": answer SET_DEVICE_STATE_FD with a pipe of the back-end's instead of using the front-end's fd. */
  readonly channel?: "frontend" | "own" | undefined;
}

/** Feature bits that are about the session, not about the device's state. */
const SESSION_FEATURES = virtioFeature.LOG_ALL | virtioFeature.PROTOCOL_FEATURES;

type Transfer =
  | { readonly kind: "saving"; readonly pump: OutgoingPump }
  | { readonly kind: "loading"; readonly pump: IncomingPump; readonly load: Load }
  | { readonly kind: "saved" }
  | { readonly kind: "loaded"; readonly load: Load }
  | { readonly kind: "failed"; readonly error: VhuError };

/** A state that arrives: spooled as it comes, and verified on the way; the device sees nothing of it before CHECK. */
class Load implements Disposable {
  readonly spool: StateSpool;
  header: StateHeader | undefined;
  readonly #decoder = new StateDecoder({
    header: (header) => {
      this.header = header;
    },
    value: () => {},
    bytes: () => {},
  });

  constructor(options: SpoolOptions | undefined) {
    this.spool = new StateSpool(options);
  }

  write(bytes: Uint8Array): void {
    this.#decoder.write(bytes);
    this.spool.append(bytes);
  }

  /** @throws FormatError when the state is not whole */
  end(): StateHeader {
    this.#decoder.end();
    if (this.header === undefined) throw new FormatError("the state has no header", "device state", 0);
    return this.header;
  }

  [Symbol.dispose](): void {
    this.spool[Symbol.dispose]();
  }
}

/**
 * SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE of one device (spec, "Migrating backend state").
 *
 * The reply goes out before a byte is written: both ends of a pipe that holds 64 KiB would wait for each other
 * otherwise. Success is what CHECK says, never the end of the stream.
 */
export class DeviceStateTransfer implements Disposable {
  #transfer: Transfer | undefined;
  #waiting: PendingReply | undefined;
  /** Features of the state that was loaded, until the first ring start has compared them. */
  #loadedFeatures: bigint | undefined;

  constructor(
    readonly device: VhostUserDevice,
    readonly loop: EventLoop,
    readonly logger: Logger,
    readonly options: DeviceStateOptions = {},
  ) {}

  get isRunning(): boolean {
    return this.#transfer?.kind === "saving" || this.#transfer?.kind === "loading";
  }

  /** Begins a transfer. The fd is ours from here on. @param ackedFeatures go into a saved state */
  begin(direction: StateDirection, phase: number, fd: Fd, ackedFeatures: bigint): Fd | undefined {
    using owned = new DisposableStack();
    owned.use(fd);
    if (phase !== 0)
      throw new ProtocolError(`is ${phase}, only 0 (stopped) exists`, "SET_DEVICE_STATE_FD", "phase");
    this.#catchUp();
    if (this.isRunning)
      throw new StateError("a device-state transfer is under way; wait for its end and CHECK it");
    this.#drop();
    if (this.options.channel !== "own") {
      this.#start(direction, fd, ackedFeatures);
      owned.move();
      return undefined;
    }
    const { readEnd, writeEnd } = createPipe();
    const [ours, theirs] = direction === "save" ? [writeEnd, readEnd] : [readEnd, writeEnd];
    owned.use(ours);
    const sent = owned.use(theirs);
    this.#start(direction, ours, ackedFeatures);
    fd[Symbol.dispose]();
    owned.move();
    return sent;
  }

  /** 0 when the state was processed in full; a load that is still arriving is answered at its end. */
  check(offeredFeatures: bigint): bigint | PendingReply {
    const transfer = this.#transfer;
    if (transfer?.kind === "loading") {
      this.#waiting = new PendingReply();
      this.#onLoadEnd = () => this.#waiting?.resolve({ body: { value: this.#conclude(offeredFeatures) } });
      return this.#waiting;
    }
    return this.#conclude(offeredFeatures);
  }

  /** To be called before a ring starts. @throws CompatibilityError when the session is not what the state was made in */
  checkStart(acked: bigint): void {
    this.#catchUp();
    if (this.isRunning) throw new StateError("a ring cannot start during a device-state transfer");
    if (this.#loadedFeatures === undefined) return;
    // Saved before a driver had chosen (a front-end may set VERSION_1 by itself): there is nothing to compare with.
    if ((this.#loadedFeatures & ~virtioFeature.VERSION_1) === 0n) {
      this.#forgetFeatures();
      return;
    }
    const differing = (this.#loadedFeatures ^ acked) & ~SESSION_FEATURES;
    if (differing !== 0n) {
      throw new CompatibilityError(
        `the loaded state was made with other features: ${describeFeatures(differing, virtioFeature).join(", ")}`,
        { details: { stateFeatures: this.#loadedFeatures, acked } },
      );
    }
    this.#forgetFeatures();
  }

  /** Forgets what was loaded: after a reset there is no state to compare with. */
  reset(): void {
    this.#drop();
    this.#forgetFeatures();
  }

  [Symbol.dispose](): void {
    this.#waiting = undefined;
    this.#drop();
  }

  #onLoadEnd: () => void = () => {};

  #forgetFeatures(): void {
    this.#loadedFeatures = undefined;
  }

  /** A front-end that gave up has closed its end; the loop may not have told the pump yet. */
  #catchUp(): void {
    const transfer = this.#transfer;
    if (transfer?.kind === "saving" || transfer?.kind === "loading") transfer.pump.catchUp();
  }

  #start(direction: StateDirection, fd: Fd, ackedFeatures: bigint): void {
    const { idleTimeoutMs } = this.options;
    if (direction === "save") {
      const { deviceType, stateVersion, oldestCompatibleStateVersion } = this.device;
      const header: StateHeader = {
        deviceType,
        version: stateVersion,
        oldestCompatibleVersion: oldestCompatibleStateVersion,
        features: ackedFeatures & ~SESSION_FEATURES,
      };
      const end = (error?: VhuError) =>
        this.#settle(error === undefined ? { kind: "saved" } : { kind: "failed", error });
      const pump = new OutgoingPump(
        this.loop,
        fd,
        encodeState(header, this.device.snapshot()),
        end,
        idleTimeoutMs,
      );
      this.#transfer = { kind: "saving", pump };
      return;
    }
    const load = new Load(this.options.spool);
    const end = (error?: VhuError) => {
      this.#settle(error === undefined ? { kind: "loaded", load } : { kind: "failed", error });
      if (error !== undefined) load[Symbol.dispose]();
      this.#onLoadEnd();
    };
    const pump = new IncomingPump(this.loop, fd, (bytes) => load.write(bytes), end, idleTimeoutMs);
    this.#transfer = { kind: "loading", pump, load };
  }

  #settle(transfer: Transfer): void {
    this.#transfer = transfer;
    if (transfer.kind === "failed")
      this.logger.warn(`device-state transfer failed: ${transfer.error.message}`);
  }

  #conclude(offeredFeatures: bigint): bigint {
    const transfer = this.#transfer;
    try {
      if (transfer === undefined) throw new StateError("CHECK_DEVICE_STATE without a transfer before it");
      if (transfer.kind === "saving")
        throw new StateError("CHECK_DEVICE_STATE before the state was read to its end");
      if (transfer.kind === "failed") throw transfer.error;
      if (transfer.kind === "loaded") this.#apply(transfer.load, offeredFeatures);
      return 0n;
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      this.logger.error(`the device state was not processed: ${error.message}`, { code: error.code });
      return 1n;
    } finally {
      this.#drop();
    }
  }

  #apply(load: Load, offeredFeatures: bigint): void {
    const header = load.end();
    const { device } = this;
    if (header.deviceType !== device.deviceType) {
      throw new CompatibilityError(
        `the state is a ${header.deviceType}'s, this device is a ${device.deviceType}`,
      );
    }
    if (header.oldestCompatibleVersion > device.stateVersion) {
      throw new CompatibilityError(
        `the state needs version ${header.oldestCompatibleVersion} of ${device.deviceType}, this is ${device.stateVersion}`,
      );
    }
    const missing = header.features & ~offeredFeatures;
    if (missing !== 0n) {
      throw new CompatibilityError(
        `the state uses features that are not offered here: ${describeFeatures(missing, virtioFeature).join(", ")}`,
      );
    }
    const restore = device.beginRestore(header);
    try {
      const decoder = new StateDecoder({
        header: () => {},
        value: (name, value) => restore.value(name, value),
        bytes: (name, chunk) => restore.bytes(name, chunk),
      });
      for (const chunk of load.spool.chunks()) decoder.write(chunk);
      decoder.end();
      restore.commit();
    } catch (error) {
      restore.abort();
      throw error;
    }
    this.#loadedFeatures = header.features;
  }

  #drop(): void {
    const transfer = this.#transfer;
    this.#transfer = undefined;
    this.#onLoadEnd = () => {};
    if (transfer?.kind === "saving" || transfer?.kind === "loading") transfer.pump.cancel();
    if (transfer?.kind === "loading" || transfer?.kind === "loaded") transfer.load[Symbol.dispose]();
  }
}
