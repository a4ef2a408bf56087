import { describe, expect, test } from "bun:test";
import { StateError } from "../../src/errors.ts";
import { GuestMemory, Iotlb, IotlbPermission } from "../../src/memory/mod.ts";
import { createMemfd } from "../../src/sys/mod.ts";
import { Chain, createDeviceRing, createDriverRing, RingError } from "../../src/vring/mod.ts";

const PAGE = 4096;
const USER = 0x7f0000000000;
const { READ, WRITE, READ_WRITE } = IotlbPermission;

function withMemory(run: (memory: GuestMemory, iotlb: Iotlb) => void, maxEntries?: number): void {
  using memory = new GuestMemory();
  const layout = { guestAddress: 0, sizeBytes: 64 * PAGE, userAddress: USER, mmapOffset: 0 };
  memory.addRegion(layout, createMemfd("region", 64 * PAGE));
  run(memory, new Iotlb(memory, maxEntries));
}

/** I/O page `iovaPage` is guest page `guestPage`. */
function entry(iovaPage: number, guestPage: number, permission: number = READ_WRITE, pages = 1) {
  return {
    iova: iovaPage * PAGE,
    sizeBytes: pages * PAGE,
    userAddress: USER + guestPage * PAGE,
    permission,
  };
}

describe("IOTLB", () => {
  test("translates; adjacent entries with adjacent targets count as one", () => {
    withMemory((memory, iotlb) => {
      for (const [iova, guest] of [
        [100, 5],
        [101, 6],
        [102, 9],
      ])
        iotlb.update(entry(iova!, guest!));
      expect(iotlb.nativeAddress(100 * PAGE + 8, 2 * PAGE - 8)).toBe(memory.nativeAddress(5 * PAGE + 8, 1));
      expect(iotlb.nativeAddress(101 * PAGE, 2 * PAGE), "not adjacent").toBe(-1);
      expect(iotlb.missPending).toBe(false);
      expect(iotlb.contiguousBytes(101 * PAGE + 1)).toBe(PAGE - 1);
      expect(iotlb.toGuest(102 * PAGE + 3)).toBe(9 * PAGE + 3);
      expect(iotlb.toGuest(99 * PAGE)).toBe(-1);
    });
  });

  test("a miss says what is needed, until it was taken or came", () => {
    withMemory((_, iotlb) => {
      iotlb.update(entry(1, 1, READ));
      expect(iotlb.nativeAddress(PAGE, 8)).toBeGreaterThan(0);
      expect(iotlb.nativeAddress(PAGE, 8, true), "read only").toBe(-1);
      expect(iotlb.takeMiss()).toEqual({ iova: PAGE, permission: WRITE });
      expect(iotlb.takeMiss()).toBeUndefined();
      expect(iotlb.nativeAddress(PAGE, PAGE + 1)).toBe(-1);
      expect([iotlb.missPending, iotlb.takeMiss()]).toEqual([true, { iova: 2 * PAGE, permission: READ }]);
      iotlb.nativeAddress(0, 1);
      iotlb.update(entry(0, 0));
      expect(iotlb.missPending).toBe(false);
    });
  });

  test("an update replaces what it overlaps, invalidation drops what it touches, the oldest makes room", () => {
    withMemory((_, iotlb) => {
      iotlb.update(entry(0, 0, READ_WRITE, 4));
      iotlb.update(entry(2, 8));
      expect([iotlb.toGuest(0), iotlb.toGuest(2 * PAGE), iotlb.size]).toEqual([-1, 8 * PAGE, 1]);
      iotlb.update(entry(10, 1));
      iotlb.update(entry(5, 2));
      iotlb.update(entry(7, 3));
      expect([iotlb.size, iotlb.toGuest(2 * PAGE), iotlb.toGuest(10 * PAGE)]).toEqual([3, -1, PAGE]);
      iotlb.invalidate({ iova: 7 * PAGE + 5, sizeBytes: 3 * PAGE });
      expect([5, 7, 10].map((page) => iotlb.toGuest(page * PAGE))).toEqual([2 * PAGE, -1, -1]);
    }, 3);
  });

  test("impossible entries are refused; one that leads out of memory translates to nothing", () => {
    withMemory((_, iotlb) => {
      const good = entry(0, 0);
      for (const bad of [{ sizeBytes: 0 }, { iova: 2 ** 53 }, { userAddress: -1 }, { permission: 0 }]) {
        expect(() => iotlb.update({ ...good, ...bad })).toThrow(StateError);
      }
      iotlb.update(entry(0, 100));
      expect([iotlb.nativeAddress(0, 8), iotlb.contiguousBytes(0), iotlb.missPending]).toEqual([
        -1,
        0,
        false,
      ]);
    });
  });

  test("a ring over I/O addresses waits for missing translations and refuses wrong ones", () => {
    withMemory((memory, iotlb) => {
      const layout = { size: 4, packed: false, eventIdx: false, indirect: false, base: 0 };
      const places = { descriptor: PAGE, available: 2 * PAGE, used: 3 * PAGE };
      using driver = createDriverRing<number>(memory, { ...layout, ...places });
      const shifted = { descriptor: 101 * PAGE, available: 102 * PAGE, used: 103 * PAGE };
      const open = () => createDeviceRing(memory, iotlb, { ...layout, ...shifted });
      expect(open).toThrow(StateError);
      expect(iotlb.takeMiss()).toEqual({ iova: 101 * PAGE, permission: READ });
      iotlb.update(entry(101, 1, READ_WRITE, 3));
      using ring = open();
      driver.add([{ guestAddress: 200 * PAGE, sizeBytes: 2 * PAGE, writable: true }], 1);
      const chain = new Chain();
      for (const [page, guest] of [
        [200, 20],
        [201, 30],
      ]) {
        expect(ring.pop(chain)).toBe(false);
        expect(iotlb.takeMiss()).toEqual({ iova: page! * PAGE, permission: WRITE });
        iotlb.update(entry(page!, guest!));
      }
      expect(ring.pop(chain)).toBe(true);
      expect([...chain.guestAddresses.subarray(0, chain.pieceCount)]).toEqual([20 * PAGE, 30 * PAGE]);
      iotlb.update(entry(300, 100));
      driver.add([{ guestAddress: 300 * PAGE, sizeBytes: 8, writable: true }], 2);
      expect(() => ring.pop(chain)).toThrow(RingError);
    });
  });
});
