import { expect, test } from "bun:test";
import { fstatSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  cloneFile,
  copyRange,
  createMemfd,
  dataRanges,
  IoVector,
  NativeBuffer,
  O,
  openFile,
  truncateFile,
  writeAt,
} from "../../src/sys/mod.ts";

const MiB = 1 << 20;

function write(fd: Parameters<typeof writeAt>[0], offset: number, byte: number, sizeBytes: number): void {
  const buffer = new NativeBuffer(sizeBytes);
  buffer.bytes.fill(byte);
  const vector = new IoVector(1);
  vector.push(buffer.address, sizeBytes);
  expect(writeAt(fd, vector, offset)).toBe(sizeBytes);
}

test.each(["in the kernel", "by hand"])("a range is copied to the same place, %s", (how) => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-copy-file-"));
  try {
    // Between a memfd and a file on another file system the kernel does not copy.
    using source =
      how === "by hand" ? createMemfd("source", 8 * MiB) : openFile(join(dir, "source"), O.RDWR | O.CREAT);
    truncateFile(source, 8 * MiB);
    write(source, 0, 1, 4096);
    write(source, 3 * MiB - 7, 2, MiB + 9);
    write(source, 5 * MiB, 0, MiB);
    using target = openFile(join(dir, "target"), O.RDWR | O.CREAT);
    truncateFile(target, 8 * MiB);
    copyRange(source, target, 0, 8 * MiB);
    const expected = Buffer.alloc(8 * MiB);
    expected.fill(1, 0, 4096).fill(2, 3 * MiB - 7, 4 * MiB + 2);
    expect(Buffer.compare(readFileSync(join(dir, "target")), expected)).toBe(0);
    // Again, over what is there: zeros, too.
    write(source, 0, 0, 4096);
    write(source, MiB, 9, 5);
    for (const offset of [0, MiB]) copyRange(source, target, offset, 65_536);
    expected.fill(0, 0, 4096).fill(9, MiB, MiB + 5);
    expect(Buffer.compare(readFileSync(join(dir, "target")), expected)).toBe(0);
    if (how === "by hand") expect(fstatSync(target.number).blocks * 512).toBeLessThan(5 * MiB);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("a clone has the same bytes, or is refused without a trace", () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-clone-"));
  try {
    using source = openFile(join(dir, "source"), O.RDWR | O.CREAT);
    write(source, 4096, 3, 4096);
    using target = openFile(join(dir, "target"), O.RDWR | O.CREAT);
    const isClone = cloneFile(source, target);
    const bytes = readFileSync(join(dir, "target"));
    expect(bytes.length).toBe(isClone ? 8192 : 0);
    if (isClone) expect(Buffer.compare(bytes, readFileSync(join(dir, "source")))).toBe(0);
    else expect([...dataRanges(target, 8192)]).toEqual([]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
