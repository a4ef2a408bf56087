import { describe, expect, test } from "bun:test";
import type { DeviceQueue, QueueRunner } from "../../src/backend/mod.ts";
import { createEventFd, createPipe, drainEvent, signalEvent } from "../../src/sys/mod.ts";
import { INITIAL_PACKED_BASE, packBase } from "../../src/vring/mod.ts";
import { virtioFeature } from "../../src/wire/mod.ts";
import { BackendRig, REGION_BYTES, USER_BASE } from "../support/backend-rig.ts";
import { TestDevice } from "../support/test-device.ts";

describe("whether a ring starts enabled", () => {
  test("disabled where protocol features were negotiated, until SET_VRING_ENABLE 1", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start(0, false);
    expect(ring.echo("early")).toBe("");
    rig.client.setVringEnable(0, true);
    rig.settle();
    expect(ring.take().length).toBe(1);
    rig.client.setVringEnable(0, false);
    expect(ring.echo("while disabled")).toBe("");
    rig.client.setVringEnable(0, true);
    expect(ring.take().length).toBe(1);
  });

  test("enabled where they were not", () => {
    using rig = new BackendRig();
    rig.client.setOwner();
    rig.client.setFeatures(virtioFeature.VERSION_1);
    const ring = rig.shareMemory().ring().start(0, false);
    expect(ring.echo("at once")).toBe("at once");
  });

  test("QEMU's net order: SET_VRING_ENABLE before SET_FEATURES holds", () => {
    using rig = new BackendRig();
    rig.client.setOwner();
    rig.client.setProtocolFeatures(rig.table.protocolFeature.REPLY_ACK!);
    rig.client.setVringEnable(0, true);
    rig.client.setFeatures(virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1);
    const ring = rig.shareMemory().ring().start(0, false);
    expect(ring.echo("net")).toBe("net");
  });

  test("RESET_OWNER disables rings, and leaves alone those that nobody could enable again", () => {
    using rig = new BackendRig();
    rig.client.setOwner();
    rig.client.setFeatures(virtioFeature.VERSION_1);
    const ring = rig.shareMemory().ring().start(0, false);
    rig.client.resetOwner();
    rig.settle();
    expect(ring.echo("still on")).toBe("still on");
    using other = new BackendRig();
    const disabled = other.negotiate().shareMemory().ring().start();
    other.client.resetOwner();
    expect(disabled.echo("off")).toBe("");
    expect(disabled.stop()).toBe(0);
  });
});

describe("addresses", () => {
  test("user addresses are translated; a part outside memory is refused and the ring stays as it was", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().configure();
    const address = {
      index: 0,
      flags: 0,
      descriptor: USER_BASE,
      available: USER_BASE + 0x1000,
      used: USER_BASE + 0x2000,
      log: 0,
    };
    for (const field of ["descriptor", "available", "used"] as const) {
      const outside = { ...address, [field]: USER_BASE + REGION_BYTES };
      expect(rig.refusal(() => rig.client.setVringAddr(outside))).toContain(
        `SET_VRING_ADDR.${field}: is in no memory region`,
      );
    }
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("translated")).toBe("translated");
  });

  test("a ring that ends outside its region cannot start", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().configure();
    const descriptor = USER_BASE + REGION_BYTES - 0x80;
    rig.client.setVringAddr({
      index: 0,
      flags: 0,
      descriptor,
      available: USER_BASE + 0x1000,
      used: USER_BASE + 0x2000,
      log: 0,
    });
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain(
      "is not wholly inside one memory region",
    );
    expect(rig.device.calls).not.toContain("start 0");
  });

  test("with GPA_ADDRESSES they are guest addresses", () => {
    class GpaDevice extends TestDevice {
      override readonly protocolFeatures = 1n << 21n;
    }
    using rig = new BackendRig({ device: new GpaDevice(1) });
    rig.negotiate(["REPLY_ACK", "GPA_ADDRESSES"]);
    const ring = rig.shareMemory().ring().configure();
    rig.client.setVringAddr({ index: 0, flags: 0, descriptor: 0, available: 0x1000, used: 0x2000, log: 0 });
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("guest")).toBe("guest");
  });
});

describe("what may not change while a ring is started", () => {
  test("kick, size, base and place; the ring goes on", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    expect(rig.refusal(() => rig.client.setVringKick(0, rig.event()))).toContain("which is started");
    expect(rig.refusal(() => rig.client.setVringNum(0, 8))).toContain("which is started");
    expect(rig.refusal(() => rig.client.setVringBase(0, 8))).toContain("which is started");
    const moved = {
      index: 0,
      flags: 0,
      descriptor: USER_BASE + 0x8000,
      available: USER_BASE + 0x1000,
      used: USER_BASE + 0x2000,
      log: 0,
    };
    expect(rig.refusal(() => rig.client.setVringAddr(moved))).toContain("moves ring 0");
    expect(ring.echo("still here")).toBe("still here");
  });

  test("features other than LOG_ALL", () => {
    using rig = new BackendRig();
    rig.negotiate().shareMemory().ring().start();
    const bits = virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1;
    expect(rig.refusal(() => rig.client.setFeatures(bits | 1n))).toContain("while a ring is started");
    rig.client.setFeatures(bits | virtioFeature.LOG_ALL);
  });

  test("a call fd may be replaced; the new one is signalled", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    const other = rig.event();
    rig.client.setVringCall(0, other);
    ring.echo("x");
    expect(drainEvent(other)).toBe(true);
    expect(ring.called).toBe(false);
  });
});

describe("GET_VRING_BASE", () => {
  test("a split ring: the true base after traffic, over the 16-bit wrap", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    for (let i = 0; i < 5; i++) ring.echo(`${i}`);
    expect(ring.stop()).toBe(5);
    expect(ring.stop()).toBe(5);
    rig.client.setVringBase(0, 5);
    rig.client.setVringKick(0, ring.kick);
    for (let i = 0; i < 65534; i++) {
      ring.add(Uint8Array.of(1));
      if (i % 8 === 7 || i === 65533) {
        ring.notify();
        ring.take();
      }
    }
    expect(ring.stop()).toBe((5 + 65534) & 0xffff);
  });

  test("a packed ring: both positions and their wrap counters", () => {
    using rig = new BackendRig();
    const ring = rig
      .negotiate(["REPLY_ACK"], virtioFeature.RING_PACKED)
      .shareMemory()
      .ring(0, { packed: true })
      .start();
    for (let i = 0; i < 9; i++) expect(ring.echo(`${i}`)).toBe(`${i}`);
    // 9 requests of 2 descriptors in a ring of 16: once around, at 2.
    const at = { availableIndex: 2, availableWrap: false, usedIndex: 2, usedWrap: false };
    expect(ring.stop() >>> 0).toBe(packBase(at));
    expect(ring.start(packBase(at)).echo("on")).toBe("on");
  });

  test("rings that never ran: what was set, or where a ring begins", () => {
    using rig = new BackendRig();
    rig.negotiate();
    expect(rig.client.getVringBase(1)).toBe(0);
    rig.client.setVringBase(1, 77);
    expect(rig.client.getVringBase(1)).toBe(77);
    using packed = new BackendRig();
    packed.client.setOwner();
    // RESET_DEVICE comes before anyone knows that the rings will be packed; it must not fix a split ring's base.
    packed.client.resetDevice();
    packed.client.setFeatures(virtioFeature.RING_PACKED | virtioFeature.VERSION_1);
    expect(packed.client.getVringBase(0) >>> 0).toBe(INITIAL_PACKED_BASE);
  });

  test("it stops the kick, keeps call and err, and refuses a ring that does not exist", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    ring.stop();
    expect(ring.echo("nobody listens")).toBe("");
    expect(rig.device.queues.size).toBe(0);
    rig.client.setVringKick(0, ring.kick);
    expect(ring.take().length).toBe(1);
    expect(ring.called).toBe(true);
    for (const set of [rig.client.setVringKick, rig.client.setVringCall, rig.client.setVringErr]) {
      expect(rig.refusal(() => set.call(rig.client, 4, rig.event()))).toContain(
        "is 4, the device has 4 queues",
      );
    }
  });

  test("a split base above 16 bits is refused at the start", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().configure(0x10000);
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain("a split ring's has 16 bits");
  });
});

describe("the suspended state", () => {
  test("a device is in it at the start, leaves it with the first ring and enters it with the last", () => {
    using rig = new BackendRig();
    rig.negotiate().shareMemory();
    const [first, second] = [rig.ring(0).start(), rig.ring(1).start()];
    first.stop();
    expect(rig.device.calls).toEqual(["start 0", "start 1", "stop 0"]);
    second.stop();
    expect(rig.device.calls).toEqual(["start 0", "start 1", "stop 0", "stop 1", "suspend"]);
  });

  test("a start that fails leaves the device suspended and the ring to be started again", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().configure();
    using plain = createPipe();
    const memory = rig.region(REGION_BYTES).fd;
    // A memfd cannot be waited for: epoll says EPERM.
    expect(rig.refusal(() => rig.client.setVringKick(0, memory))).toContain("refused SET_VRING_KICK");
    rig.client.setVringEnable(0, true);
    rig.client.setVringKick(0, plain.readEnd);
    expect(rig.device.queues.size).toBe(1);
    ring.add(Uint8Array.of(7));
    signalEvent(plain.writeEnd);
    rig.settle();
    expect(ring.take()).toEqual([Uint8Array.of(7)]);
    expect(rig.end).toBeUndefined();
  });
});

describe("a ring that its driver broke", () => {
  function broken(rig: BackendRig) {
    const ring = rig.negotiate().shareMemory().ring().configure();
    const err = rig.event("rig err");
    rig.client.setVringErr(0, err);
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("fine")).toBe("fine");
    // An available index that is 1000 ahead of a ring of 16.
    rig.memory.write(ring.layout.available + 2, Uint8Array.of(0xe9, 0x03));
    ring.notify();
    expect(drainEvent(err)).toBe(true);
    return { ring, err };
  }

  function mend(rig: BackendRig, available: number) {
    rig.memory.write(available + 2, Uint8Array.of(1, 0));
  }

  test("signals SET_VRING_ERR and stays out of service until it is stopped", () => {
    using rig = new BackendRig();
    const { ring, err } = broken(rig);
    mend(rig, ring.layout.available);
    expect(ring.echo("dead")).toBe("");
    rig.client.setVringEnable(0, false);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("dead")).toBe("");
    expect(drainEvent(err)).toBe(false);
    expect(ring.stop()).toBe(1);
    rig.client.setVringKick(0, ring.kick);
    rig.settle();
    expect(ring.take().length).toBe(2);
  });

  test("a new memory table or a log address does not revive it", () => {
    using rig = new BackendRig();
    const { ring } = broken(rig);
    mend(rig, ring.layout.available);
    rig.client.setMemTable(rig.regions);
    ring.setAddress(1);
    expect(ring.echo("dead")).toBe("");
    expect(ring.stop()).toBe(1);
  });
});

test("a kick pipe whose writer is gone does not keep the loop busy", () => {
  class CountingDevice extends TestDevice {
    kicks = 0;
    override startQueue(queue: DeviceQueue): QueueRunner {
      const runner = super.startQueue(queue);
      return {
        onKick: () => {
          this.kicks++;
          runner.onKick();
        },
      };
    }
  }
  const device = new CountingDevice(1);
  using rig = new BackendRig({ device });
  const ring = rig.negotiate().shareMemory().ring().configure();
  const { readEnd, writeEnd } = createPipe();
  rig.client.setVringKick(0, readEnd);
  rig.client.setVringEnable(0, true);
  readEnd[Symbol.dispose]();
  writeEnd[Symbol.dispose]();
  rig.settle(64);
  // One at the start, one for the hang-up.
  expect(device.kicks).toBeLessThanOrEqual(2);
  expect(ring.stop()).toBe(0);
});

test("a call fd that is a full pipe never blocks, and one that cannot be written hurts nobody", () => {
  using rig = new BackendRig();
  const ring = rig.negotiate().shareMemory().ring().start();
  using pipe = createPipe();
  // Blocking, and filled to the last byte.
  using filler = createPipe({ nonBlocking: true });
  while (signalEvent(pipe.writeEnd)) {}
  rig.client.setVringCall(0, pipe.writeEnd);
  expect(ring.echo("full")).toBe("full");
  rig.client.setVringCall(0, filler.readEnd);
  expect(ring.echo("read end")).toBe("read end");
  expect(rig.log.lines.filter(({ message }) => message.includes("cannot be signalled")).length).toBe(1);
  expect(rig.end).toBeUndefined();
});

test("a call fd that comes while the ring runs is signalled at once: what the former one was told may be lost", () => {
  using rig = new BackendRig();
  rig.negotiate().shareMemory().ring().start();
  rig.settle();
  using call = createEventFd("a later call");
  rig.client.setVringCall(0, call);
  rig.settle();
  expect(drainEvent(call)).toBe(true);
});

test("in-band notifications: kicks and calls over the sockets", () => {
  using rig = new BackendRig();
  rig.negotiate(["REPLY_ACK", "INBAND_NOTIFICATIONS", "BACKEND_REQ"]);
  const ring = rig.shareMemory().ring().configure();
  rig.client.setVringCall(0, undefined);
  rig.client.setVringKick(0, undefined);
  rig.client.setVringEnable(0, true);
  ring.add(Uint8Array.of(9));
  rig.settle();
  expect(ring.take()).toEqual([]);
  rig.client.vringKick(0);
  expect(ring.take()).toEqual([Uint8Array.of(9)]);
});

test("a ring without a kick fd is polled", () => {
  using rig = new BackendRig();
  const ring = rig.negotiate().shareMemory().ring().configure();
  rig.client.setVringKick(0, undefined);
  rig.client.setVringEnable(0, true);
  ring.add(Uint8Array.of(3));
  let echoes = ring.take();
  for (let turns = 0; turns < 200 && echoes.length === 0; turns++) {
    rig.loop.runOnce(10);
    echoes = ring.take();
  }
  expect(echoes).toEqual([Uint8Array.of(3)]);
});

test("RESET_DEVICE stops and disables rings, drops the base, and keeps owner, call and err fds", () => {
  using rig = new BackendRig();
  const ring = rig.negotiate(["REPLY_ACK", "RESET_DEVICE"]).shareMemory().ring().start();
  const err = rig.event();
  rig.client.setVringErr(0, err);
  for (let i = 0; i < 3; i++) ring.echo("x");
  rig.client.resetDevice();
  expect(rig.device.calls.slice(-3)).toEqual(["stop 0", "suspend", "reset"]);
  expect(rig.client.getVringBase(0)).toBe(0);
  expect(rig.refusal(() => rig.client.setOwner())).toContain("has an owner already");
  rig.client.setVringBase(0, 3);
  rig.client.setVringKick(0, ring.kick);
  expect(ring.echo("disabled")).toBe("");
  rig.client.setVringEnable(0, true);
  expect(ring.take().length).toBe(1);
  expect(ring.called).toBe(true);
});
