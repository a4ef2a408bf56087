import type {
  DeviceQueue,
  DeviceRestore,
  FrontendClient,
  QueueRunner,
  VhostUserDevice,
} from "../../src/backend/mod.ts";
import { CompatibilityError } from "../../src/errors.ts";
import type { StateHeader, StateSection } from "../../src/state/mod.ts";
import { protocolFeature } from "../../src/wire/mod.ts";

/** A device for tests: echoes the readable bytes of a chain into its writable ones, and records what happens to it. */
export class TestDevice implements VhostUserDevice {
  readonly deviceType = "test";
  readonly stateVersion = 1;
  readonly oldestCompatibleStateVersion = 1;
  readonly protocolFeatures =
    protocolFeature.CONFIG |
    protocolFeature.SHMEM |
    protocolFeature.SHARED_OBJECT |
    protocolFeature.MTU |
    protocolFeature.RARP;
  readonly calls: string[] = [];
  readonly queues = new Map<number, DeviceQueue>();
  /** {u32 1, u64 2}, naturally aligned. */
  config = new Uint8Array(new BigUint64Array([1n, 2n]).buffer);
  counter = 0;
  acked = 0n;
  frontend: FrontendClient | undefined;
  /** What a bytes section of the state holds; replaced to test large states. */
  bulk: () => Iterable<Uint8Array> = () => [];
  bulkReceived = 0;
  failCommit = false;
  mtu = 0;
  mac: Uint8Array | undefined;

  constructor(
    readonly maxQueues = 16,
    readonly features = 0xffn,
  ) {}

  ackFeatures(features: bigint): void {
    this.acked = features;
  }

  readConfig(): Uint8Array {
    return this.config;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.config.set(bytes, offset);
  }

  startQueue(queue: DeviceQueue): QueueRunner {
    this.calls.push(`start ${queue.index}`);
    this.queues.set(queue.index, queue);
    return { onKick: () => queue.serve((chain) => this.#echo(chain)) };
  }

  stopQueue(index: number): void {
    this.calls.push(`stop ${index}`);
    this.queues.delete(index);
  }

  reset(): void {
    this.calls.push("reset");
    this.counter = 0;
  }

  enterSuspendedState(): void {
    this.calls.push("suspend");
  }

  *snapshot(): Iterable<StateSection> {
    yield { name: "counter", value: { counter: this.counter } };
    yield { name: "bulk", bytes: this.bulk() };
  }

  beginRestore(_header: StateHeader): DeviceRestore {
    let counter = 0;
    let received = 0;
    return {
      value: (_name, value) => {
        counter = (value as { counter: number }).counter;
      },
      bytes: (_name, chunk) => {
        received += chunk.length;
      },
      commit: () => {
        if (this.failCommit) throw new CompatibilityError("this device was told to refuse");
        this.counter = counter;
        this.bulkReceived = received;
        this.calls.push("restore");
      },
      abort: () => void this.calls.push("abort"),
    };
  }

  setBackendRequestConnection(client: FrontendClient | undefined): void {
    this.frontend = client;
  }

  sharedMemoryRegions() {
    return [{ id: 3, sizeBytes: 1 << 20 }];
  }

  setMtu(mtu: number): void {
    this.mtu = mtu;
  }

  sendRarp(mac: Uint8Array): void {
    this.mac = mac;
  }

  #echo(chain: import("../../src/vring/mod.ts").Chain): number {
    this.counter++;
    const bytes = new Uint8Array(Math.min(chain.readableBytes, chain.writableBytes));
    chain.copyFromReadable(0, bytes);
    return chain.copyToWritable(0, bytes);
  }
}
