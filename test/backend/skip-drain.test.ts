import { describe, expect, test } from "bun:test";
import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import { Chain } from "../../src/vring/mod.ts";
import {
  dialects,
  type ProtocolFeature,
  protocolFeature,
  tableFor,
  virtioFeature,
} from "../../src/wire/mod.ts";
import { BackendRig, RING_SIZE, type RigRing, USER_BASE } from "../support/backend-rig.ts";
import { TestDevice } from "../support/test-device.ts";

const BITS = protocolFeature.GET_VRING_BASE_INFLIGHT | protocolFeature.GET_VRING_BASE_SKIP_DRAIN;
const ALL: readonly ProtocolFeature[] = [
  "REPLY_ACK",
  "INFLIGHT_SHMFD",
  "GET_VRING_BASE_INFLIGHT",
  "GET_VRING_BASE_SKIP_DRAIN",
];

/** Holds what it pops for as long as `holds` is set, as a slow disk does; a drain completes it. */
class HoldingDevice extends TestDevice {
  override readonly protocolFeatures = BITS;
  holds = true;
  held: Chain[] = [];

  override startQueue(queue: DeviceQueue): QueueRunner {
    const complete = () => {
      for (const chain of this.held.splice(0)) {
        const bytes = new Uint8Array(chain.readableBytes);
        chain.copyFromReadable(0, bytes);
        queue.complete(chain, chain.copyToWritable(0, bytes));
      }
      queue.publish();
    };
    return {
      onKick: () => {
        for (let chain = new Chain(); queue.pop(chain); chain = new Chain()) this.held.push(chain);
        if (!this.holds) complete();
      },
      drain: () => {
        complete();
        return true;
      },
    };
  }

  override stopQueue(): void {
    this.held = [];
  }
}

function started(packed: boolean, features = ALL, withInflight = true) {
  const device = new HoldingDevice(1);
  const rig = new BackendRig({ device, drainTimeoutMs: 1 });
  rig.negotiate(features, packed ? virtioFeature.RING_PACKED : 0n).shareMemory();
  const inflight = withInflight ? rig.client.getInflightFd(1, RING_SIZE) : undefined;
  if (inflight !== undefined) {
    rig.owned.use(inflight.fd);
    rig.client.setInflightFd(inflight);
  }
  const ring = rig.ring(0, { packed }).start();
  for (const value of [1, 2, 3]) ring.add(Uint8Array.of(value));
  ring.notify();
  expect(device.held.length).toBe(3);
  return { rig, device, ring, inflight };
}

const values = (ring: RigRing) => ring.take().map(([value]) => value);

describe.each([
  ["split", false],
  ["packed", true],
] as const)("a %s ring whose device holds its requests", (_kind, packed) => {
  test("SKIP_DRAIN answers at once; the next start gets the requests again, in their order", () => {
    const { rig, device, ring, inflight } = started(packed);
    using _rig = rig;
    const base = rig.client.getVringBaseSkipDrain(0);
    expect([values(ring), device.held, ring.called]).toEqual([[], [], false]);
    device.holds = false;
    rig.client.setInflightFd(inflight!);
    ring.start(base);
    expect(values(ring)).toEqual([1, 2, 3]);
    expect(ring.echo("new")).toBe("new");
    // Nothing is left in the buffer: another round gives nothing twice.
    ring.start(rig.client.getVringBaseSkipDrain(0));
    expect(values(ring)).toEqual([]);
  });

  test("another back-end takes them up from the buffer", () => {
    const { rig, ring, inflight } = started(packed);
    using _rig = rig;
    const base = rig.client.getVringBaseSkipDrain(0);
    const device = new HoldingDevice(1);
    device.holds = false;
    using next = new BackendRig({ device });
    next.negotiate(ALL, packed ? virtioFeature.RING_PACKED : 0n);
    next.client.setMemTable(rig.regions);
    next.client.setInflightFd(inflight!);
    const { descriptor, available, used, size } = ring.layout;
    next.client.setVringNum(0, size);
    next.client.setVringAddr({
      index: 0,
      flags: 0,
      descriptor: USER_BASE + descriptor,
      available: USER_BASE + available,
      used: USER_BASE + used,
      log: 0,
    });
    next.client.setVringBase(0, base);
    next.client.setVringKick(0, ring.kick);
    next.client.setVringEnable(0, true);
    next.settle();
    expect(values(ring)).toEqual([1, 2, 3]);
  });

  test("GET_VRING_BASE drains where SKIP_DRAIN was negotiated, and skips where only the older bit was", () => {
    const both = started(packed);
    using _both = both.rig;
    both.ring.stop();
    expect(values(both.ring)).toEqual([1, 2, 3]);
    const older = started(packed, ["REPLY_ACK", "INFLIGHT_SHMFD", "GET_VRING_BASE_INFLIGHT"]);
    using _older = older.rig;
    older.ring.stop();
    expect(values(older.ring)).toEqual([]);
  });

  test("without an inflight buffer nothing is dropped: it drains", () => {
    const { rig, ring } = started(packed, ALL, false);
    using _rig = rig;
    rig.client.getVringBaseSkipDrain(0);
    expect(values(ring)).toEqual([1, 2, 3]);
  });
});

test("the bits are offered for a device that can, under the dialect's bits, and for no other", () => {
  using plain = new BackendRig();
  expect(plain.client.getProtocolFeatures() & BITS).toBe(0n);
  using holding = new BackendRig({ device: new HoldingDevice(1) });
  expect(holding.client.getProtocolFeatures() & BITS).toBe(BITS);
  // Where bit 20 means SHMEM, a device that has no shared memory must not seem to.
  const table = tableFor(dialects["libvhost-user-shmem"]);
  using other = new BackendRig({ device: new HoldingDevice(1), table });
  expect(other.client.getProtocolFeatures() & protocolFeature.GET_VRING_BASE_INFLIGHT).toBe(0n);
  using shmem = new BackendRig({ device: new TestDevice(1), table });
  expect(shmem.client.getProtocolFeatures() & (table.protocolFeature.SHMEM as bigint)).not.toBe(0n);
});
