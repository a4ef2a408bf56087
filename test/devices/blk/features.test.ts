import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blkFeature } from "../../../devices/blk/mod.ts";
import {
  DISCARD,
  header,
  IN,
  IOERR,
  OK,
  OUT,
  out,
  pattern,
  type RigOptions,
  room,
  segment,
  setUpDisk,
  UNSUPP,
  WAYS,
  WRITE_ZEROES,
} from "./blk-rig.ts";

const MiB = 1 << 20;
const SECTORS = (4 * MiB) / 512;
const UNMAP = 1;

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
  path = join(dir, "disk.raw");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const allocatedBytes = () => statSync(path).blocks * 512;

describe.each(WAYS)("by %s", (way) => {
  const setUp = (options: RigOptions = {}) => setUpDisk(path, { way, ...options });

  describe("discard and write zeroes", () => {
    beforeEach(() => writeFileSync(path, pattern(4 * MiB, 1)));

    test.each([
      ["a discard", DISCARD, 0],
      ["write zeroes that may unmap", WRITE_ZEROES, UNMAP],
    ])("%s gives the space back and leaves zeros", (_, type, flags) => {
      using disk = setUp();
      const before = allocatedBytes();
      expect(disk.request([out(header(type)), out(segment(2048, 4096, flags)), room(1)])).toMatchObject({
        status: OK,
        writtenBytes: 1,
      });
      expect(before - allocatedBytes()).toBe(2 * MiB);
      const wanted = pattern(4 * MiB, 1).fill(0, MiB, 3 * MiB);
      expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
    });

    test("write zeroes keep the space when they are asked to", () => {
      using disk = setUp();
      const before = allocatedBytes();
      // From the middle of a page, so that no file system does it by whole blocks alone.
      expect(disk.request([out(header(WRITE_ZEROES)), out(segment(3, 2000)), room(1)]).status).toBe(OK);
      expect(allocatedBytes()).toBe(before);
      const wanted = pattern(4 * MiB, 1).fill(0, 3 * 512, 2003 * 512);
      expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
    });

    test.each([
      ["beyond the end", segment(SECTORS - 1, 2), IOERR],
      ["larger than the limit", segment(0, 0x200001), IOERR],
      ["with a reserved flag", segment(0, 8, 2), UNSUPP],
      ["of two segments", Buffer.concat([segment(0, 8), segment(16, 8)]), IOERR],
      ["of half a segment", segment(0, 8).subarray(0, 8), IOERR],
    ])("%s is refused", (_, bytes, status) => {
      using disk = setUp();
      for (const type of [DISCARD, WRITE_ZEROES]) {
        expect(disk.request([out(header(type)), out(bytes), room(1)]).status).toBe(status);
      }
      expect(Buffer.compare(readFileSync(path), pattern(4 * MiB, 1))).toBe(0);
    });

    test("a discard with the unmap flag is not supported; nothing to do is done", () => {
      using disk = setUp();
      expect(disk.request([out(header(DISCARD)), out(segment(0, 8, UNMAP)), room(1)]).status).toBe(UNSUPP);
      expect(disk.request([out(header(DISCARD)), out(segment(0, 0)), room(1)]).status).toBe(OK);
    });

    test("a read-only disk offers and does neither", () => {
      using disk = setUp({ readOnly: true });
      expect(disk.device.features & (blkFeature.DISCARD | blkFeature.WRITE_ZEROES)).toBe(0n);
      expect(disk.request([out(header(DISCARD)), out(segment(0, 8)), room(1)]).status).toBe(IOERR);
      expect(Buffer.compare(readFileSync(path), pattern(4 * MiB, 1))).toBe(0);
    });
  });

  test("a sparse disk of more than 2 TiB is read and written at both ends, and stays sparse", () => {
    writeFileSync(path, "");
    const sizeBytes = 5 * 2 ** 40;
    truncateSync(path, sizeBytes);
    using disk = setUp();
    const config = Buffer.from(disk.device.readConfig());
    expect(config.readBigUInt64LE(0)).toBe(BigInt(sizeBytes / 512));
    const last = sizeBytes / 512 - 8;
    for (const [sector, seed] of [
      [0, 1],
      [2 ** 32 - 4, 2],
      [last, 3],
    ] as const) {
      const data = pattern(4096, seed);
      expect(disk.request([out(header(OUT, sector)), out(data), room(1)]).status).toBe(OK);
      const back = disk.request([out(header(IN, sector)), room(4096), room(1)]);
      expect([back.status, Buffer.compare(back.data, data)]).toEqual([OK, 0]);
    }
    expect(disk.request([out(header(OUT, last + 1)), out(pattern(4096, 4)), room(1)]).status).toBe(IOERR);
    expect(disk.request([out(header(WRITE_ZEROES)), out(segment(8, 4096, UNMAP)), room(1)]).status).toBe(OK);
    expect(allocatedBytes()).toBeLessThan(64 << 10);
  });

  test("a driver without FLUSH has its writes, discards and zeroes durable at once", () => {
    writeFileSync(path, pattern(4 * MiB, 1));
    using disk = setUp({ features: 0n });
    for (const [head, data] of [
      [header(OUT, 4), pattern(512, 9)],
      [header(DISCARD), segment(16, 8)],
      [header(WRITE_ZEROES), segment(32, 8)],
    ] as const) {
      expect(disk.request([out(head), out(data), room(1)]).status).toBe(OK);
    }
  });

  test("--direct serves requests of any alignment", () => {
    writeFileSync(path, pattern(MiB, 5));
    using disk = setUp({ direct: true });
    const memory = 4096;
    for (const [sector, rooms] of [
      [0, [memory]],
      [1, [512, 1024]],
      [7, [100, 412]],
      [16, [4096, 512]],
    ] as const) {
      const sizeBytes = rooms.reduce((sum, length) => sum + length, 0);
      const read = disk.request([out(header(IN, sector)), ...rooms.map(room), room(1)]);
      const wanted = pattern(MiB, 5).subarray(sector * 512, sector * 512 + sizeBytes);
      expect([read.status, Buffer.compare(read.data, wanted)]).toEqual([OK, 0]);
      const data = pattern(sizeBytes, sector + 60);
      expect(disk.request([out(header(OUT, sector + 64)), out(data), room(1)]).status).toBe(OK);
      expect(
        Buffer.compare(
          readFileSync(path)
            .subarray((sector + 64) * 512)
            .subarray(0, sizeBytes),
          data,
        ),
      ).toBe(0);
    }
  });

  test("while changes are tracked, all that was written is known", () => {
    writeFileSync(path, pattern(4 * MiB, 1));
    using disk = setUp();
    const { changes } = disk.device;
    changes.start();
    const kinds = [
      [header(OUT, 2048), pattern(4096, 9)],
      [header(DISCARD), segment(4096, 8)],
      [header(WRITE_ZEROES), segment(6144, 8)],
    ] as const;
    expect(disk.request([out(header(IN)), room(4096), room(1)]).status).toBe(OK);
    for (const [head, data] of kinds) {
      expect(disk.request([out(head), out(data), room(1)]).status).toBe(OK);
    }
    const part = 64 << 10;
    expect(changes.take()).toEqual([MiB, 2 * MiB, 3 * MiB].map((offset) => ({ offset, sizeBytes: part })));
  });

  test("a disk that grew is used to its new end, and the driver can see it", () => {
    writeFileSync(path, pattern(MiB, 5));
    using disk = setUp();
    const behind = MiB / 512;
    expect(disk.request([out(header(OUT, behind)), out(pattern(512, 1)), room(1)]).status).toBe(IOERR);
    expect(disk.device.refreshCapacity()).toBe(false);
    truncateSync(path, 2 * MiB);
    expect(disk.device.refreshCapacity()).toBe(true);
    expect(Buffer.from(disk.device.readConfig()).readBigUInt64LE(0)).toBe(BigInt(2 * behind));
    expect(disk.request([out(header(OUT, behind)), out(pattern(512, 1)), room(1)]).status).toBe(OK);
    truncateSync(path, 2 * MiB + 100);
    expect(() => disk.device.refreshCapacity()).toThrow(/not a multiple|multiple of 512/);
    expect(disk.request([out(header(OUT, behind)), out(pattern(512, 1)), room(1)]).status).toBe(OK);
  });
});

test("the config space says what the driver may ask for", () => {
  writeFileSync(path, pattern(MiB, 5));
  using disk = setUpDisk(path);
  const config = Buffer.from(disk.device.readConfig());
  const topology = [config[24], config[25], config.readUInt16LE(26), config.readUInt32LE(28)];
  expect(topology).toEqual([3, 0, 8, 0]);
  expect([config.readUInt32LE(36), config.readUInt32LE(40), config.readUInt32LE(44)]).toEqual([
    2 ** 21,
    1,
    8,
  ]);
  expect([config.readUInt32LE(48), config.readUInt32LE(52), config[56]]).toEqual([2 ** 17, 1, 1]);
});
