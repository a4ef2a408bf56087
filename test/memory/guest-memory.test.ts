import { describe, expect, test } from "bun:test";
import { tmpdir } from "node:os";
import { StateError, SyscallError } from "../../src/errors.ts";
import { GuestMemory, type RegionLayout } from "../../src/memory/mod.ts";
import {
  createMemfd,
  createPipe,
  type Fd,
  Mapping,
  openTemporaryFile,
  truncateFile,
} from "../../src/sys/mod.ts";

const PAGE = 4096;
const GIB = 2 ** 30;
const USER = 0x7f0000000000;

function region(guestPage: number, pages: number, userPage = guestPage): RegionLayout {
  return {
    guestAddress: guestPage * PAGE,
    sizeBytes: pages * PAGE,
    userAddress: USER + userPage * PAGE,
    mmapOffset: 0,
  };
}

function file(pages: number): Fd {
  return createMemfd("region", pages * PAGE);
}

describe("regions", () => {
  test("translate, and only ranges that lie in one region", () => {
    using memory = new GuestMemory();
    memory.addRegion(region(16, 4, 100), file(4));
    memory.addRegion(region(0, 2, 300), file(2));
    memory.addRegion(region(2, 1, 200), file(1));
    expect(memory.regions.map((one) => one.layout.guestAddress / PAGE)).toEqual([0, 2, 16]);
    expect(memory.totalBytes).toBe(7 * PAGE);
    const native = memory.regions[2]!.mapping.address;
    expect(memory.nativeAddress(16 * PAGE, 4 * PAGE)).toBe(native);
    expect(memory.nativeAddress(17 * PAGE + 5, 1)).toBe(native + PAGE + 5);
    expect(memory.nativeAddress(19 * PAGE, PAGE + 1)).toBe(-1);
    expect(memory.nativeAddress(PAGE, 2 * PAGE), "two adjacent regions").toBe(-1);
    expect([3, 15, 20].map((page) => memory.nativeAddress(page * PAGE, 1))).toEqual([-1, -1, -1]);
    expect([0, PAGE + 1, 3 * PAGE].map((address) => memory.contiguousBytes(address))).toEqual([
      2 * PAGE,
      PAGE - 1,
      0,
    ]);
    expect(memory.userToGuest(USER + 101 * PAGE + 7, 10)).toBe(17 * PAGE + 7);
    expect(memory.userToGuest(USER + 103 * PAGE, PAGE + 1)).toBe(-1);
    expect(memory.userToGuest(5, 1)).toBe(-1);
  });

  test("are shared with whoever else maps the file, at mmapOffset", () => {
    using memory = new GuestMemory();
    using fd = file(4);
    memory.addRegion({ ...region(8, 2), mmapOffset: 2 * PAGE }, fd.duplicate());
    using other = Mapping.ofFd(fd, { sizeBytes: 4 * PAGE });
    memory.write(8 * PAGE + 3, Uint8Array.of(7, 8));
    const bytes = new Uint8Array(other.window(0, 4 * PAGE));
    expect([...bytes.subarray(2 * PAGE + 3, 2 * PAGE + 6)]).toEqual([7, 8, 0]);
  });

  test("a copy spans adjacent regions; a hole is refused", () => {
    using memory = new GuestMemory();
    memory.setTable([
      { layout: region(0, 1, 50), fd: file(1) },
      { layout: region(1, 1, 10), fd: file(1) },
    ]);
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => i);
    memory.write(PAGE - 100, bytes);
    const back = new Uint8Array(400);
    memory.read(PAGE - 100, back, 50, 300);
    expect(back.subarray(50, 350)).toEqual(bytes);
    expect(() => memory.read(2 * PAGE - 100, back)).toThrow("no memory region");
    expect(() => memory.write(2 * PAGE - 100, bytes)).toThrow(StateError);
  });

  test("a window is detached when its region goes, or when it is given back", () => {
    using memory = new GuestMemory();
    memory.addRegion(region(0, 2), file(2));
    const window = memory.window(PAGE, 64);
    const other = memory.window(0, 64);
    expect(window.byteLength).toBe(64);
    memory.closeWindow(other);
    expect(other.byteLength).toBe(0);
    expect(() => memory.window(PAGE, PAGE + 1)).toThrow(StateError);
    memory.removeRegion(region(0, 2));
    expect([window.byteLength, memory.regions.length, memory.nativeAddress(0, 1)]).toEqual([0, 0, -1]);
    memory.closeWindow(window);
  });

  test("removal matches guest address, user address and size", () => {
    using memory = new GuestMemory();
    memory.addRegion(region(0, 2), file(2));
    for (const wrong of [region(0, 1), region(0, 2, 5), region(1, 2)]) {
      expect(() => memory.removeRegion(wrong)).toThrow(StateError);
    }
    memory.removeRegion(region(0, 2));
    expect(() => memory.removeRegion(region(0, 2))).toThrow(StateError);
  });
});

describe("an impossible region is refused and its fd closed", () => {
  const cases: [string, RegionLayout][] = [
    ["overlap in guest", region(1, 2, 900)],
    ["overlap in user", region(9, 2, 1)],
    ["empty", region(9, 0)],
    ["not a multiple", { ...region(9, 1), guestAddress: 9 * PAGE + 512 }],
    ["not a multiple", { ...region(9, 1), mmapOffset: 1 }],
    ["not below 2^53", { ...region(9, 1), userAddress: 2 ** 60 }],
    ["not below 2^53", { ...region(9, 1), guestAddress: -PAGE }],
    ["not below 2^53", { ...region(9, 1), sizeBytes: Number.NaN }],
    ["ends above", { ...region(9, 2), guestAddress: 2 ** 53 - PAGE }],
    ["offset and size need", region(9, 4)],
    ["offset and size need", { ...region(9, 3), mmapOffset: PAGE }],
  ];
  for (const [why, layout] of cases) {
    test(why, () => {
      using memory = new GuestMemory();
      memory.addRegion(region(0, 2), file(2));
      const fd = file(3);
      expect(() => memory.addRegion(layout, fd)).toThrow(why);
      expect(fd.isOpen).toBe(false);
      expect(memory.regions).toHaveLength(1);
    });
  }

  test("an fd that cannot be mapped", () => {
    using memory = new GuestMemory();
    using pipe = createPipe();
    expect(() => memory.addRegion(region(0, 1), pipe.readEnd)).toThrow(SyscallError);
  });

  test("one that an untrusted peer could still shrink", () => {
    using memory = new GuestMemory({ demandSeals: true });
    memory.addRegion(region(0, 1), file(1));
    expect(() => memory.addRegion(region(4, 1), unsealed())).toThrow("not sealed");
    expect(memory.regions).toHaveLength(1);
  });
});

/** A page of memory that can be shrunk: a file without a name. */
function unsealed(): Fd {
  const fd = openTemporaryFile(tmpdir());
  truncateFile(fd, PAGE);
  return fd;
}

describe("SET_MEM_TABLE", () => {
  test("replaces all at once", () => {
    using memory = new GuestMemory();
    memory.addRegion(region(0, 2), file(2));
    const old = memory.window(0, 16);
    memory.setTable([{ layout: region(1, 3), fd: file(3) }]);
    expect(memory.regions.map((one) => one.layout)).toEqual([region(1, 3)]);
    expect(old.byteLength).toBe(0);
  });

  test("leaves everything as it was when one entry is wrong, and closes the fds", () => {
    using memory = new GuestMemory();
    memory.addRegion(region(0, 2), file(2));
    memory.write(0, Uint8Array.of(42));
    const tables = [
      [region(0, 1), region(1, 1), region(5, 9)],
      [region(0, 2), region(1, 1, 80)],
    ];
    for (const table of tables) {
      const entries = table.map((layout) => ({ layout, fd: file(2) }));
      expect(() => memory.setTable(entries)).toThrow(StateError);
      expect(entries.some(({ fd }) => fd.isOpen)).toBe(false);
      const back = new Uint8Array(1);
      memory.read(0, back);
      expect([memory.regions.length, back[0]]).toEqual([1, 42]);
    }
  });
});

describe("size", () => {
  test("509 regions fit, one more does not", () => {
    using memory = new GuestMemory();
    using fd = file(509);
    for (let i = 0; i < 509; i++) {
      // Backwards and apart from each other, so that sorting and searching have something to do.
      memory.addRegion({ ...region(2 * (508 - i), 1, 3 * i), mmapOffset: i * PAGE }, fd.duplicate());
    }
    expect(memory.regions).toHaveLength(509);
    for (let i = 0; i < 509; i++) memory.write(2 * (508 - i) * PAGE + 9, Uint8Array.of(i & 0xff));
    using all = Mapping.ofFd(fd, { sizeBytes: 509 * PAGE });
    const bytes = new Uint8Array(all.window(0, 509 * PAGE));
    for (let i = 0; i < 509; i++) expect(bytes[i * PAGE + 9]).toBe(i & 0xff);
    expect(() => memory.addRegion(region(5000, 1), file(1))).toThrow("more than 509");
    memory.removeRegion(region(0, 1, 3 * 508));
    memory.addRegion(region(5000, 1), file(1));
  });

  test("more than 4 GiB in all; a region larger than one view", () => {
    using memory = new GuestMemory();
    const low: RegionLayout = { guestAddress: 0, sizeBytes: 3 * GIB, userAddress: USER, mmapOffset: 0 };
    const high: RegionLayout = {
      ...low,
      guestAddress: 4 * GIB,
      userAddress: USER + 8 * GIB,
      mmapOffset: 3 * GIB,
    };
    using fd = createMemfd("6 GiB, sparse", 6 * GIB);
    memory.setTable([
      { layout: low, fd: fd.duplicate() },
      { layout: high, fd: fd.duplicate() },
    ]);
    expect(memory.totalBytes).toBe(6 * GIB);
    const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);
    for (const address of [
      0,
      GIB - 500,
      2 * GIB - 1,
      3 * GIB - 1000,
      4 * GIB,
      6 * GIB - 20,
      7 * GIB - 1000,
    ]) {
      memory.write(address, bytes);
      const back = new Uint8Array(1000);
      memory.read(address, back);
      expect(back).toEqual(bytes);
    }
    expect(memory.nativeAddress(5 * GIB, 2 * GIB)).toBe(memory.regions[1]!.mapping.address + GIB);
    expect(memory.userToGuest(USER + 10 * GIB, GIB)).toBe(6 * GIB);
    expect(new Uint8Array(memory.window(7 * GIB - 1000, 1000))).toEqual(bytes);
  });
});
