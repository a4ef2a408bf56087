import { describe, expect, test } from "bun:test";
import { StateError } from "../../src/errors.ts";
import { DirtyLog, GuestMemory, PAGE_BYTES } from "../../src/memory/mod.ts";
import { createMemfd, type Fd, Mapping } from "../../src/sys/mod.ts";

function pagesIn(bits: Uint8Array): number[] {
  return Array.from({ length: bits.length * 8 }, (_, page) => page).filter(
    (page) => (bits[page >> 3]! & (1 << (page & 7))) !== 0,
  );
}

function withLog(sizeBytes: number, run: (log: DirtyLog, bits: Uint8Array) => void, offset = 0): void {
  const fd = createMemfd("log", 2 * PAGE_BYTES);
  using mapping = Mapping.ofFd(fd, { sizeBytes: 2 * PAGE_BYTES });
  using log = DirtyLog.fromFd(fd, { sizeBytes, offset });
  expect(fd.isOpen).toBe(false);
  run(log, new Uint8Array(mapping.window(offset, sizeBytes)));
}

describe("dirty log", () => {
  test("marks each page that a range touches", () => {
    withLog(16, (log, bits) => {
      log.mark(3 * PAGE_BYTES + 4095, 1);
      expect(pagesIn(bits)).toEqual([3]);
      log.mark(3 * PAGE_BYTES + 4095, 2);
      log.mark(100 * PAGE_BYTES, 0);
      expect(pagesIn(bits)).toEqual([3, 4]);
      log.mark(6 * PAGE_BYTES + 1, 20 * PAGE_BYTES);
      expect(pagesIn(bits)).toEqual([3, 4, ...Array.from({ length: 21 }, (_, i) => 6 + i)]);
    });
  });

  test("lies anywhere in its file", () => {
    withLog(
      8,
      (log, bits) => {
        log.mark(63 * PAGE_BYTES, 1);
        expect(pagesIn(bits)).toEqual([63]);
      },
      PAGE_BYTES + 24,
    );
  });

  test("a page beyond it is an error, once", () => {
    withLog(2, (log, bits) => {
      expect(() => log.mark(14 * PAGE_BYTES, 4 * PAGE_BYTES)).toThrow("beyond the dirty log");
      log.mark(1000 * PAGE_BYTES, 1);
      expect(pagesIn(bits)).toEqual([14, 15]);
    });
  });

  test("pages above 2^31 do not wrap", () => {
    const fd = createMemfd("large log", 2 ** 29);
    using mapping = Mapping.ofFd(fd, { sizeBytes: 2 ** 29 });
    using log = DirtyLog.fromFd(fd, { sizeBytes: 2 ** 29, offset: 0 });
    log.mark((2 ** 31 + 5) * PAGE_BYTES, 1);
    expect(pagesIn(new Uint8Array(mapping.window(2 ** 28, 16)))).toEqual([5]);
  });

  test("is refused when it is empty, too large or longer than its file", () => {
    const attempt = (sizeBytes: number, offset = 0): (() => void) => {
      const fd: Fd = createMemfd("log", PAGE_BYTES);
      return () => {
        try {
          DirtyLog.fromFd(fd, { sizeBytes, offset });
        } finally {
          expect(fd.isOpen).toBe(false);
        }
      };
    };
    for (const [size, offset] of [
      [0, 0],
      [2 ** 40, 0],
      [8, -8],
      [PAGE_BYTES + 1, 0],
      [8, PAGE_BYTES],
    ]) {
      expect(attempt(size!, offset!)).toThrow(StateError);
    }
  });

  test("writes to guest memory go into it", () => {
    using memory = new GuestMemory();
    const layout = { guestAddress: 0, sizeBytes: 8 * PAGE_BYTES, userAddress: PAGE_BYTES, mmapOffset: 0 };
    memory.addRegion(layout, createMemfd("region", 8 * PAGE_BYTES));
    withLog(1, (log, bits) => {
      memory.dirtyLog = log;
      memory.write(5 * PAGE_BYTES - 1, Uint8Array.of(1, 2));
      memory.read(0, new Uint8Array(5));
      memory.dirtyLog = undefined;
      memory.write(0, Uint8Array.of(1));
      expect(pagesIn(bits)).toEqual([4, 5]);
    });
  });
});
