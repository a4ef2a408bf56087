import type { StateHeader, StateSection } from "../state/mod.ts";
import type { Fd } from "../sys/mod.ts";
import type { DeviceQueue } from "./device-queue.ts";
import type { FrontendClient } from "./frontend-client.ts";

/** What runs a started queue of a device. */
export interface QueueRunner {
  /** Serves everything that is in the ring. Called on a kick, at the start, and after a wait for addresses. */
  onKick(): void;
  /**
   * Finishes what was popped and is still being worked on. Returns true when nothing is left.
   * Devices that complete every chain before `onKick` returns leave it out.
   */
  drain?(): boolean;
  /**
   * Drops everything that is in a ring that is started and disabled. For a device that can do that without a side effect, as
   * a network device does with frames to be sent (spec, "Ring states"). For others such a ring waits.
   */
  discard?(): void;
}

/**
 * A state that is being restored. Nothing of it may show in the device before `commit`; `abort` drops it.
 * Sections come in the order in which `snapshot` gave them, and all of them were verified before the first one.
 */
export interface DeviceRestore {
  value(name: string, value: unknown): void;
  /** A piece of a byte section; `chunk` is valid during the call. */
  bytes(name: string, chunk: Uint8Array): void;
  /** Makes the state the device's own, wholly or, by throwing, not at all. */
  commit(): void;
  abort(): void;
}

/** A shared memory region that the device offers (GET_SHMEM_CONFIG). */
export interface SharedMemoryRegion {
  /** 0 to 255. */
  readonly id: number;
  readonly sizeBytes: number;
}

/**
 * What a device author implements. Everything else (messages, memory, rings, transfers) is the handler's.
 *
 * A device starts in the suspended state: no queue runs. The handler owns the feature bits LOG_ALL (26),
 * INDIRECT_DESC (28), EVENT_IDX (29), PROTOCOL_FEATURES (30), VERSION_1 (32) and RING_PACKED (34).
 */
export interface VhostUserDevice {
  /** Names the type inside snapshots, e.g. "blk". */
  readonly deviceType: string;
  readonly maxQueues: number;
  /** Device feature bits (virtio 1.2, 5.x) that it offers. */
  readonly features: bigint;
  /**
   * Protocol features that it needs: any of CONFIG, MTU, RARP, STATUS, SHMEM, SHARED_OBJECT, BACKEND_REQ.
   *
   * A device that can cancel at once what it has popped, so that `stopQueue` may come without a `drain` before it, adds
   * GET_VRING_BASE_INFLIGHT and GET_VRING_BASE_SKIP_DRAIN: the chains stay in the inflight buffer, and the next start, here
   * or elsewhere, pops them again.
   */
  readonly protocolFeatures: bigint;
  /** Version of what `snapshot` writes, and the oldest version whose reader can still make sense of it. */
  readonly stateVersion: number;
  readonly oldestCompatibleStateVersion: number;

  ackFeatures(features: bigint): void;

  /** The whole config space as the driver sees it. */
  readConfig(): Uint8Array;
  /** @throws VhuError when the range is read-only; nothing was written then */
  writeConfig?(offset: number, bytes: Uint8Array): void;

  startQueue(queue: DeviceQueue): QueueRunner;
  /** A module that can run the queues in ring Workers: it exports `createRunner` (see CreateRunner). */
  readonly ringProgram?: URL;
  /**
   * As `startQueue`, where the queue runs in a ring Worker with the device's program. Returns what `createRunner` is given:
   * it survives a structured clone, and what changes while the queue runs is in a SharedArrayBuffer. fds go by number and
   * stay open until `stopQueue`.
   */
  startQueueInWorker?(index: number): unknown;
  /** Nothing of the queue may be touched any more: what was popped and is not completed is dropped. */
  stopQueue(index: number): void;

  /** Back to the state after construction, but for what the host configured. */
  reset(): void;

  /** All queues are stopped: give up locks, flush, stop timers. `startQueue` ends the suspended state. */
  enterSuspendedState?(): void;

  /** The state, pulled while the handler keeps answering; the device is suspended throughout. */
  snapshot(): Iterable<StateSection>;
  /** @throws CompatibilityError when the state does not fit this device */
  beginRestore(header: StateHeader): DeviceRestore;

  sharedMemoryRegions?(): readonly SharedMemoryRegion[];
  /** The way to the front-end (config changes, shared memory), once it exists; undefined when it went away. */
  setBackendRequestConnection?(client: FrontendClient | undefined): void;

  /** NET_SET_MTU. */
  setMtu?(mtu: number): void;
  /** SEND_RARP: announce this MAC address after a migration. `mac` has 6 bytes. */
  sendRarp?(mac: Uint8Array): void;
  /** GET_SHARED_OBJECT: the dma-buf behind a UUID of 16 bytes. The handler closes the fd. */
  sharedObject?(uuid: Uint8Array): Fd | undefined;
}
