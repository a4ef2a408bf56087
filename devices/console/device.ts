import type {
  DeviceQueue,
  DeviceRestore,
  FrontendClient,
  QueueRunner,
  VhostUserDevice,
} from "../../src/backend/mod.ts";
import { CompatibilityError, UsageError } from "../../src/errors.ts";
import { MAX_CONSOLE_NAME_BYTES, MAX_CONSOLE_PORTS } from "../../src/limits.ts";
import { type Logger, silentLogger } from "../../src/logger.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";
import { ObjectState } from "../state/mod.ts";
import {
  type ConsoleSize,
  consoleFeature,
  EMERGENCY_WRITE_OFFSET,
  encodeConsoleConfig,
  queueCount,
  queueRole,
} from "./config.ts";
import type { ConsoleEnd } from "./console-end.ts";
import { ControlChannel } from "./control-channel.ts";
import { ConsolePort, type ConsolePortOptions } from "./port.ts";
import { CONSOLE_STATE_VERSION, type ConsoleState, checkConsoleState, consoleUpgrades } from "./state.ts";

export interface ConsoleOptions {
  /** Port 0's, unless that says. Default: 80 columns of 25 rows. */
  readonly size?: ConsoleSize | undefined;
  readonly logger?: Logger | undefined;
}

/**
 * A virtio console: one port, or several by MULTIPORT. While the device is suspended no byte moves, and a snapshot takes in
 * what would be lost with this process, so that none is lost or repeated.
 */
export class ConsoleDevice implements VhostUserDevice, Disposable {
  readonly deviceType = "console";
  readonly maxQueues: number;
  readonly features: bigint;
  readonly protocolFeatures = protocolFeature.CONFIG | protocolFeature.BACKEND_REQ;
  readonly stateVersion = CONSOLE_STATE_VERSION;
  readonly oldestCompatibleStateVersion = CONSOLE_STATE_VERSION;
  readonly ports: readonly ConsolePort[];
  readonly #control: ControlChannel;
  readonly #logger: Logger;
  readonly #state: ObjectState<ConsoleState>;
  #acked = 0n;
  #frontend: FrontendClient | undefined;

  /**
   * Takes the ends. An end alone makes a console with one port and two queues; a list of ports, of one even, offers
   * MULTIPORT. A front-end that does not negotiate that sees port 0 only.
   * @throws UsageError
   */
  constructor(ports: ConsoleEnd | readonly ConsolePortOptions[], options: ConsoleOptions = {}) {
    const isMultiport = Array.isArray(ports);
    const list: readonly ConsolePortOptions[] = isMultiport ? ports : [{ end: ports as ConsoleEnd }];
    checkPorts(list);
    this.maxQueues = queueCount(list.length, isMultiport);
    this.features =
      consoleFeature.SIZE | consoleFeature.EMERG_WRITE | (isMultiport ? consoleFeature.MULTIPORT : 0n);
    this.#logger = options.logger ?? silentLogger;
    const has = (feature: bigint) => (this.#acked & feature) !== 0n;
    const around = {
      logger: this.#logger,
      get isMultiport() {
        return has(consoleFeature.MULTIPORT);
      },
      onOpenChange: () => this.#control.announce(),
    };
    this.ports = list.map((port, id) => {
      const size = port.size ?? (id === 0 ? options.size : undefined);
      return new ConsolePort(id, { ...port, size }, around);
    });
    this.#control = new ControlChannel(this.ports, this.#logger, () => has(consoleFeature.SIZE));
    this.#state = new ObjectState({
      deviceType: this.deviceType,
      version: CONSOLE_STATE_VERSION,
      capture: () => this.#capture(),
      check: (fields) => checkConsoleState(fields, this.ports),
      apply: (state) => this.#apply(state),
      upgrades: consoleUpgrades(),
    });
  }

  ackFeatures(features: bigint): void {
    this.#acked = features;
  }

  readConfig(): Uint8Array {
    return encodeConsoleConfig(this.ports[0]!.size, this.ports.length);
  }

  /** The emergency write: one character for port 0, output without a queue. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    if (offset !== EMERGENCY_WRITE_OFFSET || bytes.length < 1) {
      throw new CompatibilityError(
        "of a console's config space only emerg_wr (bytes 8 to 11) can be written",
      );
    }
    if (!this.ports[0]!.writeEmergency(bytes.subarray(0, 1))) {
      this.#logger.warn("an emergency write was dropped: the host's end takes no output");
    }
  }

  /** Changes the size of a port's screen that the guest sees, and tells it so. */
  resize(size: ConsoleSize, id = 0): void {
    const port = this.ports[id];
    if (port === undefined) throw new UsageError(`the console has ${this.ports.length} ports, no port ${id}`);
    port.size = size;
    this.#control.announceSize(port);
    if (id === 0) this.#frontend?.configChange();
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    const { of, direction } = queueRole(queue.index);
    return of === "control"
      ? this.#control.startQueue(queue, direction)
      : this.ports[of]!.startQueue(queue, direction);
  }

  stopQueue(index: number): void {
    const { of, direction } = queueRole(index);
    if (of === "control") this.#control.stopQueue(direction);
    else this.ports[of]!.stopQueue(direction);
  }

  reset(): void {
    this.#control.reset();
    for (const port of this.ports) port.reset();
  }

  snapshot(): Iterable<StateSection> {
    return this.#state.snapshot();
  }

  beginRestore(header: StateHeader): DeviceRestore {
    return this.#state.beginRestore(header);
  }

  setBackendRequestConnection(client: FrontendClient | undefined): void {
    this.#frontend = client;
  }

  [Symbol.dispose](): void {
    for (const port of this.ports) port[Symbol.dispose]();
  }

  #capture(): ConsoleState {
    for (const port of this.ports) port.collect();
    return {
      isDriverReady: this.#control.isDriverReady,
      ports: this.ports.map(({ name, isConsole, size, isOpenInGuest, talk, toGuest, toHost }) => ({
        ...{ name, isConsole, ...size, isOpenInGuest, ...talk },
        toGuest: toGuest.peek().slice(),
        toHost: toHost.peek().slice(),
      })),
    };
  }

  #apply(state: ConsoleState): void {
    this.reset();
    this.#control.isDriverReady = state.isDriverReady;
    for (const [id, saved] of state.ports.entries()) {
      const port = this.ports[id]!;
      port.size = { columns: saved.columns, rows: saved.rows };
      port.isOpenInGuest = saved.isOpenInGuest;
      Object.assign(port.talk, { due: saved.due, isReady: saved.isReady, toldOpen: saved.toldOpen });
      port.toGuest.push(saved.toGuest);
      port.toHost.clear();
      port.toHost.push(saved.toHost);
    }
  }
}

function checkPorts(ports: readonly ConsolePortOptions[]): void {
  if (ports.length < 1 || ports.length > MAX_CONSOLE_PORTS) {
    throw new UsageError(`a console has 1 to ${MAX_CONSOLE_PORTS} ports, not ${ports.length}`);
  }
  const names = ports.flatMap(({ name }) => (name === undefined || name === "" ? [] : [name]));
  if (new Set(names).size !== names.length) throw new UsageError("two ports of a console have the same name");
  const bad = names.find(
    (name) => Buffer.byteLength(name) > MAX_CONSOLE_NAME_BYTES || /[\p{Cc}/]/u.test(name),
  );
  if (bad !== undefined) {
    throw new UsageError(
      `a port's name has at most ${MAX_CONSOLE_NAME_BYTES} bytes, no control character and no slash: ${JSON.stringify(bad)}`,
    );
  }
}
