import { describe, expect, test } from "bun:test";
import { tmpdir } from "node:os";
import {
  createMemfd,
  createUserfaultfd,
  drainEvent,
  Fd,
  libc,
  Mapping,
  NativeBuffer,
  openTemporaryFile,
  truncateFile,
} from "../../src/sys/mod.ts";
import { headerFlag, payloads, REPLY_FLAGS, virtioFeature } from "../../src/wire/mod.ts";
import { BackendRig, REGION_BYTES, USER_BASE } from "../support/backend-rig.ts";
import { TestDevice } from "../support/test-device.ts";

const LOG_BYTES = 4096;

/** A dirty log, and the pages that are marked in it; asking clears them. */
function dirtyLog(rig: BackendRig) {
  const fd = rig.owned.use(createMemfd("log", LOG_BYTES));
  const mapping = rig.owned.use(Mapping.ofFd(fd, { sizeBytes: LOG_BYTES }));
  const bits = new Uint8Array(mapping.window(0, LOG_BYTES));
  return {
    fd,
    take: () => {
      const pages: number[] = [];
      for (let page = 0; page < LOG_BYTES * 8; page++)
        if ((bits[page >> 3]! & (1 << (page & 7))) !== 0) pages.push(page);
      bits.fill(0);
      return pages;
    },
  };
}

describe("LOG_ALL", () => {
  const ALL = virtioFeature.PROTOCOL_FEATURES | virtioFeature.VERSION_1;

  test("switched on and off while a ring runs: marks what buffers receive, and the used ring where its address says so", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate(["REPLY_ACK", "LOG_SHMFD"]).shareMemory().ring().start();
    const log = dirtyLog(rig);
    rig.client.setLogBase({ sizeBytes: LOG_BYTES, offset: 0 }, log.fd);
    ring.echo("off");
    log.take();
    rig.client.setFeatures(ALL | virtioFeature.LOG_ALL);
    expect(ring.echo("data")).toBe("data");
    const dataPage = ring.roomOf(1) >> 12;
    expect(log.take()).toEqual([dataPage]);
    ring.setAddress(1, 0x10000);
    expect(ring.echo("both")).toBe("both");
    expect(log.take()).toEqual([0x10, dataPage]);
    ring.setAddress(0);
    expect(ring.echo("data again")).toBe("data again");
    expect(log.take()).toEqual([dataPage]);
    rig.client.setFeatures(ALL);
    expect(ring.echo("not disabled")).toBe("not disabled");
    expect(ring.stop()).toBe(5);
  });

  test("of a packed ring: what its buffers receive, its descriptors, and its event area under the log's address", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "LOG_SHMFD"], virtioFeature.RING_PACKED).shareMemory();
    const ring = rig.ring(1, { packed: true }).start();
    const log = dirtyLog(rig);
    rig.client.setLogBase({ sizeBytes: LOG_BYTES, offset: 0 }, log.fd);
    rig.client.setFeatures(ALL | virtioFeature.RING_PACKED | virtioFeature.LOG_ALL);
    const dataPage = ring.roomOf(0) >> 12;
    ring.echo("data");
    expect(log.take()).toEqual([dataPage]);
    ring.setAddress(1, 0x10000);
    log.take();
    expect(ring.echo("all")).toBe("all");
    const descriptorPage = ring.layout.descriptor >> 12;
    expect(log.take()).toEqual([descriptorPage, 0x10, dataPage]);
    ring.setAddress(0);
    log.take();
    ring.echo("data again");
    expect(log.take()).toEqual([dataPage]);
    rig.client.setFeatures(ALL | virtioFeature.RING_PACKED);
    expect(ring.echo("off again")).toBe("off again");
  });

  test("a log that is longer than its file is refused: nothing else says so, so the session ends", () => {
    using rig = new BackendRig();
    rig.negotiate(["LOG_SHMFD"]);
    const log = dirtyLog(rig);
    expect(rig.raw(6, payloads.log.encode({ sizeBytes: 2 * LOG_BYTES, offset: 0 }), { fds: [log.fd] })).toBe(
      "closed",
    );
    expect(rig.end).toMatchObject({ kind: "failed", error: { code: "STATE" } });
  });
});

describe("memory that changes while rings run", () => {
  test("SET_MEM_TABLE: the rings go on where they stood, and nothing is lost", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate().shareMemory().ring().start();
    expect(ring.echo("one")).toBe("one");
    ring.add(Uint8Array.of(1, 1));
    rig.client.setMemTable(rig.regions);
    expect(ring.take()).toEqual([Uint8Array.of(1, 1)]);
    expect(ring.echo("three")).toBe("three");
    expect(ring.stop()).toBe(3);
  });

  test("ADD_MEM_REG and REM_MEM_REG beside a running ring; a buffer in the new region is served", () => {
    using rig = new BackendRig();
    const ring = rig.negotiate(["REPLY_ACK", "CONFIGURE_MEM_SLOTS"]).shareMemory().ring().start();
    const added = rig.region(16 * REGION_BYTES);
    rig.client.addMemReg(added);
    rig.memory.write(added.layout.guestAddress, Uint8Array.of(5, 6));
    const room = added.layout.guestAddress + 0x1000;
    ring.driver.add(
      [
        { guestAddress: added.layout.guestAddress, sizeBytes: 2, writable: false },
        { guestAddress: room, sizeBytes: 2, writable: true },
      ],
      { sequence: 0, slot: 0 },
    );
    ring.notify();
    expect(ring.driver.popUsed()?.writtenBytes).toBe(2);
    const echo = new Uint8Array(2);
    rig.memory.read(room, echo);
    expect([...echo]).toEqual([5, 6]);
    expect(rig.refusal(() => rig.client.addMemReg(added))).toContain("overlap");
    rig.client.remMemReg(added.layout);
    expect(rig.refusal(() => rig.client.remMemReg(added.layout))).toContain("no memory region has");
    expect(ring.echo("still")).toBe("still");
  });

  test("a region that a ring lies in is removed: that ring is out of service, the session and the others go on", () => {
    using rig = new BackendRig();
    rig.region();
    const other = rig.region(REGION_BYTES);
    const ring = rig.negotiate(["REPLY_ACK", "CONFIGURE_MEM_SLOTS"]).shareMemory().ring().configure();
    const err = rig.event();
    rig.client.setVringErr(0, err);
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("a")).toBe("a");
    rig.client.setMemTable([other]);
    expect(drainEvent(err)).toBe(true);
    expect(rig.device.queues.size).toBe(0);
    expect(rig.end).toBeUndefined();
    expect(ring.stop()).toBe(1);
    expect(rig.refusal(() => rig.client.setVringKick(0, ring.kick))).toContain("is in no memory region");
  });

  test("509 slots and no more", () => {
    using rig = new BackendRig();
    rig.negotiate(["REPLY_ACK", "CONFIGURE_MEM_SLOTS"]);
    const regions = Array.from({ length: 510 }, (_, i) => ({
      layout: {
        guestAddress: i * 4096,
        sizeBytes: 4096,
        userAddress: USER_BASE + i * 4096,
        mmapOffset: i * 4096,
      },
      fd: undefined,
    }));
    using fd = createMemfd("slots", 510 * 4096);
    for (const { layout } of regions.slice(0, 509)) rig.client.addMemReg({ layout, fd });
    expect(rig.refusal(() => rig.client.addMemReg({ layout: regions[509]!.layout, fd }))).toContain(
      "more than 509",
    );
  });
});

describe("seals that are demanded of an untrusted peer", () => {
  /** A region, or anything else, that its owner can still shrink. */
  function unsealed(rig: BackendRig, sizeBytes: number): Fd {
    const name = NativeBuffer.cString("unsealed");
    const fd = rig.owned.use(new Fd(libc.memfd_create(name.address, 0), "unsealed memfd"));
    truncateFile(fd, sizeBytes);
    return fd;
  }
  const layout = { guestAddress: 0, sizeBytes: REGION_BYTES, userAddress: USER_BASE, mmapOffset: 0 };

  test("sealed memory is taken, and unsealed memory is where nothing was demanded", () => {
    using rig = new BackendRig({ demandSeals: true });
    expect(rig.negotiate().shareMemory().ring().start().echo("sealed")).toBe("sealed");
    using trusting = new BackendRig();
    trusting.negotiate().client.setMemTable([{ layout, fd: unsealed(trusting, REGION_BYTES) }]);
    expect(trusting.handler.memory.regions.length).toBe(1);
  });

  test("unsealed memory is refused with NEED_REPLY: the session stays, with the memory that it had", () => {
    using rig = new BackendRig({ demandSeals: true });
    const ring = rig.negotiate(["REPLY_ACK", "CONFIGURE_MEM_SLOTS"]).shareMemory().ring().start();
    const region = { layout, fd: unsealed(rig, REGION_BYTES) };
    const other = { layout: { ...layout, guestAddress: REGION_BYTES }, fd: region.fd };
    for (const request of [() => rig.client.setMemTable([region]), () => rig.client.addMemReg(other)])
      expect(rig.refusal(request)).toContain("not sealed against shrinking");
    using file = openTemporaryFile(tmpdir());
    truncateFile(file, REGION_BYTES);
    expect(rig.refusal(() => rig.client.setMemTable([{ layout, fd: file }]))).toContain("not sealed");
    expect(rig.end).toBeUndefined();
    expect(ring.echo("still")).toBe("still");
  });

  test("without NEED_REPLY the session is closed", () => {
    using rig = new BackendRig({ demandSeals: true });
    rig.negotiate([]);
    const payload = payloads.memoryTable.encode({ regions: [layout] });
    expect(rig.raw(5, payload, { fds: [unsealed(rig, REGION_BYTES)] })).toBe("closed");
    expect(rig.end).toMatchObject({ kind: "failed", error: { code: "STATE" } });
  });

  test("of the dirty log and the inflight buffer, too", () => {
    const log = { sizeBytes: LOG_BYTES, offset: 0 };
    using rig = new BackendRig({ demandSeals: true });
    rig.negotiate(["REPLY_ACK", "LOG_SHMFD", "INFLIGHT_SHMFD"]);
    const own = rig.client.getInflightFd(1, 16);
    using fd = own.fd;
    rig.client.setInflightFd({ ...own, fd });
    const inflight = { layout: own.layout, fd: unsealed(rig, own.layout.sizeBytes) };
    expect(rig.refusal(() => rig.client.setInflightFd(inflight))).toContain("not sealed");
    rig.client.setLogBase(log, dirtyLog(rig).fd);
    expect(rig.raw(6, payloads.log.encode(log), { fds: [unsealed(rig, LOG_BYTES)] })).toBe("closed");
    expect(rig.end).toMatchObject({ error: { message: expect.stringContaining("not sealed") } });
  });
});

describe("IOTLB", () => {
  const DEVICE_FEATURES = 0xffn | virtioFeature.ACCESS_PLATFORM;
  const READ_WRITE = 3;

  function started() {
    const rig = new BackendRig({ device: new TestDevice(1, DEVICE_FEATURES) });
    rig.negotiate(["REPLY_ACK", "BACKEND_REQ"], virtioFeature.ACCESS_PLATFORM).shareMemory();
    const [ours, theirs] = rig.pair();
    rig.client.setBackendReqFd(theirs.fd);
    theirs[Symbol.dispose]();
    const ring = rig.ring().configure();
    const { descriptor, available, used } = ring.layout;
    rig.client.setVringAddr({ index: 0, flags: 0, descriptor, available, used, log: 0 });
    /** What the back-end asked for: iova and permission of each miss. */
    const misses = () => {
      rig.settle();
      const found: (readonly [number, number])[] = [];
      for (let frame = ours.receive(0); typeof frame !== "string"; frame = ours.receive(0)) {
        const { iova, permission, type } = payloads.iotlb.decode(frame.payload, "miss");
        expect([frame.request, type]).toEqual([1, 1]);
        found.push([Number(iova), permission]);
      }
      return found;
    };
    const update = (iova: number, sizeBytes = 4096, permission = READ_WRITE) =>
      rig.client.iotlbMsg({
        iova: BigInt(iova),
        sizeBytes: BigInt(sizeBytes),
        userAddress: BigInt(USER_BASE + iova),
        permission,
        type: 2,
      });
    return { rig, ring, misses, update };
  }

  test("a ring waits for the translations of its parts, then of its buffers, and goes on", () => {
    const { rig, ring, misses, update } = started();
    using _rig = rig;
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(rig.device.queues.size).toBe(0);
    expect(misses()).toEqual([[0, 1]]);
    update(0);
    expect(misses()).toEqual([[0x1000, 1]]);
    update(0x1000);
    expect(misses()).toEqual([[0x2000, 2]]);
    update(0x2000);
    expect(rig.device.queues.size).toBe(1);
    expect(ring.echo("hello")).toBe("");
    const [[page] = [0]] = misses();
    expect(page).toBe(0x80000);
    update(0x80000);
    expect(ring.take().length).toBe(1);
    expect(ring.stop()).toBe(1);
  });

  test("an invalidation of a buffer's page makes it ask again; of the ring's, the ring waits again", () => {
    const { rig, ring, misses, update } = started();
    using _rig = rig;
    update(0, REGION_BYTES);
    rig.client.setVringKick(0, ring.kick);
    rig.client.setVringEnable(0, true);
    expect(ring.echo("mapped")).toBe("mapped");
    const invalidate = (iova: bigint, sizeBytes: bigint) =>
      rig.client.iotlbMsg({ iova, sizeBytes, userAddress: 0n, permission: 0, type: 3 });
    invalidate(0n, (1n << 64n) - 1n);
    expect(rig.device.queues.size).toBe(0);
    expect(misses()).toEqual([[0, 1]]);
    ring.add(Uint8Array.of(4));
    update(0, REGION_BYTES);
    rig.settle();
    expect(ring.take()).toEqual([Uint8Array.of(4)]);
    expect(ring.stop()).toBe(2);
  });

  test("other types and impossible entries are answered with a failure, and without a channel a miss breaks the start", () => {
    const { rig } = started();
    using _rig = rig;
    const message = { iova: 0n, sizeBytes: 4096n, userAddress: 0n, permission: READ_WRITE };
    for (const bad of [
      { ...message, type: 1 },
      { ...message, type: 9 },
      { ...message, type: 2, permission: 0 },
      { ...message, type: 2, iova: 1n << 60n },
    ]) {
      expect(() => rig.client.iotlbMsg(bad)).toThrow("refused IOTLB_MSG");
    }
    using lonely = new BackendRig({ device: new TestDevice(1, DEVICE_FEATURES) });
    const ring = lonely
      .negotiate(["REPLY_ACK"], virtioFeature.ACCESS_PLATFORM)
      .shareMemory()
      .ring()
      .configure();
    expect(lonely.refusal(() => lonely.client.setVringKick(0, ring.kick))).toContain("no back-end channel");
    expect(lonely.device.calls).toEqual(["suspend"]);
  });
});

function userfaultfdIsPermitted(): boolean {
  try {
    createUserfaultfd()[Symbol.dispose]();
    return true;
  } catch (error) {
    console.log(`postcopy is not tested here: ${(error as Error).message}`);
    return false;
  }
}

describe.skipIf(!userfaultfdIsPermitted())("postcopy", () => {
  test("advise, listen, the table's reply with addresses here, QEMU's confirmation, end", () => {
    using rig = new BackendRig();
    const region = rig.region();
    rig.negotiate(["REPLY_ACK", "PAGEFAULT", "CONFIGURE_MEM_SLOTS"]);
    expect(rig.refusal(() => rig.client.postcopyListen())).toContain("without POSTCOPY_ADVISE");
    rig.client.postcopyAdvise()[Symbol.dispose]();
    rig.client.postcopyListen();
    const flags = headerFlag.VERSION | headerFlag.NEED_REPLY;
    const table = rig.raw(5, payloads.memoryTable.encode({ regions: [region.layout] }), {
      flags,
      fds: [region.fd],
    });
    if (typeof table === "string") throw new Error(table);
    const { regions } = payloads.memoryTable.decode(table.payload, "reply");
    expect(table.flags).toBe(REPLY_FLAGS);
    expect(regions[0]).toMatchObject({ guestAddress: 0, sizeBytes: REGION_BYTES });
    expect(regions[0]!.userAddress).toBe(rig.handler.memory.regions[0]!.mapping.address);
    // QEMU says by a u64 0 under the same number that it has registered the ranges, and gets the acknowledgement then.
    expect(rig.raw(5, new Uint8Array(8), { flags })).toMatchObject({
      request: 5,
      flags: REPLY_FLAGS,
      payload: new Uint8Array(8),
    });
    expect(rig.handler.memory.regions.length).toBe(1);
    const more = rig.region(REGION_BYTES);
    const added = rig.raw(37, payloads.singleMemoryRegion.encode({ region: more.layout }), {
      flags,
      fds: [more.fd],
    });
    if (typeof added === "string") throw new Error(added);
    expect(payloads.singleMemoryRegion.decode(added.payload, "reply").region.guestAddress).toBe(REGION_BYTES);
    expect(rig.raw(37, new Uint8Array(8), { flags })).toMatchObject({
      request: 37,
      payload: new Uint8Array(8),
    });
    expect(rig.handler.memory.regions.length).toBe(2);
    rig.client.postcopyEnd();
    rig.client.setMemTable([region]);
  });

  test("a confirmation that is none is refused", () => {
    using rig = new BackendRig();
    const region = rig.region();
    rig.negotiate(["REPLY_ACK", "PAGEFAULT"]);
    rig.client.postcopyAdvise()[Symbol.dispose]();
    rig.client.postcopyListen();
    rig.raw(5, payloads.memoryTable.encode({ regions: [region.layout] }), { fds: [region.fd] });
    expect(rig.raw(18, payloads.vringState.encode({ index: 0, num: 1 }))).toBe("closed");
    expect(rig.end).toMatchObject({ kind: "failed", error: { request: "SET_MEM_TABLE" } });
  });
});
