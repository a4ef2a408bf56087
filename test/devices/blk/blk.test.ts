import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlkDevice, blkFeature, DiskImage } from "../../../devices/blk/mod.ts";
import { CompatibilityError, FormatError, SyscallError, UsageError } from "../../../src/errors.ts";
import { encodeState } from "../../../src/state/mod.ts";
import { check, createMemfd, F, libc, SEAL } from "../../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import {
  FLUSH,
  GET_ID,
  header,
  IN,
  IOERR,
  OK,
  OUT,
  out,
  pattern,
  type RigOptions,
  room,
  setUpDisk,
  UNSUPP,
  WAYS,
} from "./blk-rig.ts";

const SECTORS = 64;
const CAPACITY_BYTES = SECTORS * 512;

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
  path = join(dir, "disk.raw");
  writeFileSync(path, pattern(CAPACITY_BYTES, 7));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe.each(WAYS)("by %s", (way) => {
  const setUp = (options: RigOptions = {}) => setUpDisk(path, { way, ...options });

  describe.each([{ packed: false }, { packed: true }])("requests ($packed)", ({ packed }) => {
    test("reads what is in the image", () => {
      using disk = setUp({ packed });
      const { data, status, writtenBytes } = disk.request([out(header(IN, 3)), room(1024), room(1)]);
      expect(status).toBe(OK);
      expect(writtenBytes).toBe(1025);
      expect(Buffer.compare(data, pattern(CAPACITY_BYTES, 7).subarray(3 * 512, 5 * 512))).toBe(0);
      expect(disk.queue.calls).toBe(1);
    });

    test("writes to the image", () => {
      using disk = setUp({ packed });
      const bytes = pattern(1024, 99);
      const { status, writtenBytes } = disk.request([out(header(OUT, 10)), out(bytes), room(1)]);
      expect([status, writtenBytes]).toEqual([OK, 1]);
      const wanted = pattern(CAPACITY_BYTES, 7);
      wanted.set(bytes, 5120);
      expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
    });

    test("many requests go round the ring, in order, with few calls for a batch", () => {
      using disk = setUp({ packed });
      for (let round = 0; round < 40; round++) {
        const sector = round % SECTORS;
        for (let i = 0; i < 5; i++)
          disk.queue.add([out(header(OUT, sector)), out(pattern(512, round + i)), room(1)]);
        const before = disk.queue.calls;
        disk.queue.kick();
        const calls = disk.queue.calls - before;
        // With io_uring one batch may end in several.
        expect(calls).toBeGreaterThan(0);
        expect(calls).toBeLessThanOrEqual(way === "uring" ? 5 : 1);
        for (let i = 0; i < 5; i++) expect(disk.queue.take()?.written.at(-1)).toBe(OK);
        expect(
          Buffer.compare(
            readFileSync(path)
              .subarray(sector * 512)
              .subarray(0, 512),
            pattern(512, round + 4),
          ),
        ).toBe(0);
      }
    });
  });

  describe("framing", () => {
    test("header and data in any pieces, the status behind the data in the same piece", () => {
      using disk = setUp();
      const head = header(IN, 1);
      const read = disk.request([out(head.subarray(0, 3)), out(head.subarray(3)), room(500), room(13)]);
      expect(read.status).toBe(OK);
      expect(Buffer.compare(read.data, pattern(CAPACITY_BYTES, 7).subarray(512, 1024))).toBe(0);
      const bytes = pattern(1024, 3);
      const joined = Buffer.concat([header(OUT, 2), bytes]);
      expect(disk.request([out(joined.subarray(0, 20)), out(joined.subarray(20)), room(1)]).status).toBe(OK);
      expect(Buffer.compare(readFileSync(path).subarray(1024, 2048), bytes)).toBe(0);
    });

    test("more pieces than one preadv takes", () => {
      writeFileSync(path, pattern(1 << 20, 7));
      using disk = setUp({ size: 2048 });
      const pieces = Array.from({ length: 1500 }, () => room(512));
      const { data, status } = disk.request([out(header(IN, 0)), ...pieces, room(1)]);
      expect(status).toBe(OK);
      expect(Buffer.compare(data, pattern(1 << 20, 7).subarray(0, 1500 * 512))).toBe(0);
    });

    test("a header that is too short is an I/O error, a chain without room for a status is given back as it is", () => {
      using disk = setUp();
      expect(disk.request([out(header(IN).subarray(0, 15)), room(513)]).status).toBe(IOERR);
      const { writtenBytes } = disk.queue.run([out(header(IN))]);
      expect(writtenBytes).toBe(0);
      expect(disk.logger.lines.map((line) => line.message).join("\n")).toMatch(
        /header alone.*\n.*no room for its status/,
      );
      // The queue goes on.
      expect(disk.request([out(header(IN)), room(512), room(1)]).status).toBe(OK);
    });

    test("a chain of writable pieces only has no header", () => {
      using disk = setUp();
      expect(disk.request([room(513)]).status).toBe(IOERR);
    });
  });

  describe("refused requests", () => {
    test.each([
      ["behind the end", SECTORS, 512],
      ["across the end", SECTORS - 1, 1024],
      ["at the last sector number there is", 0xffff_ffff_ffff_ffffn, 512],
      ["where the byte offset passes 2^64", 0x80_0000_0000_0000n, 512],
      ["of half a sector", 0, 256],
    ])("a read and a write %s", (_, sector, sizeBytes) => {
      using disk = setUp();
      expect(disk.request([out(header(IN, sector)), room(sizeBytes), room(1)])).toMatchObject({
        status: IOERR,
        writtenBytes: 0,
      });
      expect(disk.request([out(header(OUT, sector)), out(new Uint8Array(sizeBytes)), room(1)]).status).toBe(
        IOERR,
      );
      expect(disk.logger.lines).toHaveLength(2);
      expect(disk.logger.lines[0]?.details).toMatchObject({
        offset: Number(BigInt(sector) * 512n),
        sizeBytes,
      });
      expect(Buffer.compare(readFileSync(path), pattern(CAPACITY_BYTES, 7))).toBe(0);
    });

    test("a type that is not known", () => {
      using disk = setUp();
      expect(disk.request([out(header(2)), out(new Uint8Array(16)), room(1)]).status).toBe(UNSUPP);
      expect(disk.request([out(header(0xffffffff)), room(1)]).status).toBe(UNSUPP);
    });

    test("a write to a read-only image, which says so in its features; reads and flushes work", () => {
      using disk = setUp({ readOnly: true });
      expect(disk.device.features & blkFeature.RO).toBe(blkFeature.RO);
      expect(disk.request([out(header(OUT)), out(new Uint8Array(512)), room(1)]).status).toBe(IOERR);
      expect(disk.request([out(header(IN)), room(512), room(1)]).status).toBe(OK);
      expect(disk.request([out(header(FLUSH)), room(1)]).status).toBe(OK);
    });

    test("a read from an image that was cut short under us", () => {
      using disk = setUp();
      truncateSync(path, 700);
      const { status, writtenBytes } = disk.request([out(header(IN)), room(1024), room(1)]);
      expect([status, writtenBytes]).toEqual([IOERR, 700]);
      expect(disk.logger.lines.at(-1)).toMatchObject({ details: { offset: 0, sizeBytes: 1024, done: 700 } });
    });

    test("a write that the kernel refuses", () => {
      using sealed = createMemfd("image", CAPACITY_BYTES);
      check(libc.fcntl(sealed.number, F.ADD_SEALS, SEAL.WRITE), "fcntl(F_ADD_SEALS)", sealed.label);
      path = `/proc/self/fd/${sealed.number}`;
      using disk = setUp();
      expect(disk.request([out(header(OUT, 4)), out(new Uint8Array(512)), room(1)]).status).toBe(IOERR);
      expect(disk.logger.lines.at(-1)).toMatchObject({
        message: expect.stringContaining("EPERM"),
        details: { offset: 2048, sizeBytes: 512 },
      });
    });

    test("a guest that fails for ever does not fill the log", () => {
      using disk = setUp();
      for (let i = 0; i < 300; i++) disk.request([out(header(99)), room(1)]);
      expect(disk.logger.lines.length).toBe(16 + 4);
      expect(disk.logger.lines.at(-1)?.details.failures).toBe(256);
    });
  });

  describe("flush and the write cache", () => {
    test("flush answers", () => {
      using disk = setUp();
      expect(disk.request([out(header(FLUSH)), room(1)])).toMatchObject({ status: OK, writtenBytes: 1 });
    });

    test("the driver turns the cache off and on", () => {
      using disk = setUp();
      expect(disk.device.readConfig()[32]).toBe(1);
      disk.device.writeConfig(32, Uint8Array.of(0));
      expect(disk.device.readConfig()[32]).toBe(0);
      expect(disk.request([out(header(OUT)), out(new Uint8Array(512)), room(1)]).status).toBe(OK);
      disk.device.reset();
      expect(disk.device.readConfig()[32]).toBe(1);
    });

    test("nothing else of the config space can be written", () => {
      using disk = setUp();
      for (const [offset, bytes] of [
        [0, [1]],
        [32, [2]],
        [32, [1, 1]],
        [33, [0]],
      ] as const) {
        expect(() => disk.device.writeConfig(offset, Uint8Array.from(bytes))).toThrow(CompatibilityError);
      }
      expect(disk.device.readConfig()[32]).toBe(1);
    });
  });

  describe("identity", () => {
    test("GET_ID", () => {
      using disk = setUp({ id: "SERIAL-0123456789AB" });
      const { data, status } = disk.request([out(header(GET_ID)), room(20), room(1)]);
      expect(status).toBe(OK);
      expect(data.toString()).toBe("SERIAL-0123456789AB\0");
      const short = disk.request([out(header(GET_ID)), room(6), room(1)]);
      expect([short.status, short.data.toString()]).toEqual([OK, "SERIAL"]);
      expect(disk.request([out(header(GET_ID)), room(32), room(1)]).writtenBytes).toBe(20);
    });

    test("the config space, as long as QEMU and others ask for it", () => {
      using disk = setUp({ numQueues: 4 });
      const config = Buffer.from(disk.device.readConfig());
      expect(config.length).toBeGreaterThanOrEqual(60);
      expect(config.readBigUInt64LE(0)).toBe(BigInt(SECTORS));
      expect(disk.device.features & (blkFeature.SIZE_MAX | blkFeature.SEG_MAX)).toBe(6n);
      expect([config.readUInt32LE(8), config.readUInt32LE(12)]).toEqual([4 << 20, 126]);
      expect(config.readUInt32LE(20)).toBe(512);
      expect(config.readUInt16LE(34)).toBe(4);
      expect(disk.device.maxQueues).toBe(4);
    });

    test("what is no disk is refused", () => {
      const bad = join(dir, "bad");
      expect(() => DiskImage.open(bad)).toThrow(SyscallError);
      writeFileSync(bad, "");
      expect(() => DiskImage.open(bad)).toThrow(/is empty/);
      writeFileSync(bad, "x".repeat(513));
      expect(() => DiskImage.open(bad)).toThrow(/truncate -s 1024/);
      expect(() => DiskImage.open(dir)).toThrow(UsageError);
      using image = DiskImage.open(path);
      expect(() => new BlkDevice(image, { id: "x".repeat(21) })).toThrow(UsageError);
      for (const numQueues of [0, 257, 1.5])
        expect(() => new BlkDevice(image, { numQueues })).toThrow(UsageError);
    });
  });
});

describe("state", () => {
  const setUp = (options: RigOptions = {}) => setUpDisk(path, options);

  test("goes to another process's device with the cache setting and the id", () => {
    using from = setUp({ id: "A" });
    from.device.writeConfig(32, Uint8Array.of(0));
    from.queue.stop();
    from.device.enterSuspendedState();
    const bytes = saveDevice(from.device);
    using to = setUp();
    loadDevice(to.device, bytes);
    expect(to.device.readConfig()[32]).toBe(0);
    expect(to.request([out(header(GET_ID)), room(20), room(1)]).data.toString()).toBe("A".padEnd(20, "\0"));
  });

  test("a ring goes on behind another device where it stood", () => {
    using from = setUp();
    from.request([out(header(OUT, 1)), out(pattern(512, 1)), room(1)]);
    using to = setUp();
    loadDevice(to.device, saveDevice(from.device));
    from.queue.stop();
    from.queue.add([out(header(IN, 1)), room(512), room(1)]);
    from.queue.moveTo(to.device);
    expect(Buffer.compare(from.queue.take()!.written.subarray(0, 512), pattern(512, 1))).toBe(0);
    from.queue.stop();
  });

  test.each([
    ["another size", { sizeBytes: 1024 }, /capacityBytes/],
    ["other queues", { numQueues: 2 }, /numQueues/],
    ["another id", { id: "B" }, /id/],
    ["a read-only image", { readOnly: true }, /readOnly/],
  ] as const)("is refused for %s, and the device stays as it was", (_, other, message) => {
    using from = setUp({ id: "A" });
    from.device.writeConfig(32, Uint8Array.of(0));
    const bytes = saveDevice(from.device);
    if ("sizeBytes" in other) truncateSync(path, other.sizeBytes);
    using to = setUp({ id: "A", ...other });
    expect(() => loadDevice(to.device, bytes)).toThrow(CompatibilityError);
    expect(() => loadDevice(to.device, bytes)).toThrow(message);
    expect(to.device.readConfig()[32]).toBe(1);
  });

  const good = { capacityBytes: CAPACITY_BYTES, readOnly: false, numQueues: 1, id: "", writeback: false };
  const own = { deviceType: "blk", version: 1, oldestCompatibleVersion: 1, features: 0n };
  test.each([
    [
      "another device's",
      { ...own, deviceType: "console" },
      [{ name: "state", value: good }],
      CompatibilityError,
    ],
    [
      "a newer reader's",
      { ...own, version: 3, oldestCompatibleVersion: 2 },
      [{ name: "state", value: good }],
      CompatibilityError,
    ],
    ["without its section", own, [], FormatError],
    [
      "with a section more",
      own,
      [
        { name: "state", value: good },
        { name: "x", value: 1 },
      ],
      FormatError,
    ],
    [
      "with a byte section",
      own,
      [
        { name: "state", value: good },
        { name: "x", bytes: [Uint8Array.of(1)] },
      ],
      FormatError,
    ],
    ["with a list", own, [{ name: "state", value: [1] }], FormatError],
    ["with a field less", own, [{ name: "state", value: { ...good, id: null } }], FormatError],
    ["with a field more", own, [{ name: "state", value: { ...good, more: 1 } }], FormatError],
    ["with a wrong type", own, [{ name: "state", value: { ...good, writeback: 1 } }], FormatError],
    ["with a wrong number", own, [{ name: "state", value: { ...good, numQueues: 1.5 } }], FormatError],
    ["with a long id", own, [{ name: "state", value: { ...good, id: "x".repeat(21) } }], FormatError],
  ])("%s state is refused, and the device stays as it was", (_, head, sections, kind) => {
    using to = setUp();
    const bytes = Buffer.concat([...encodeState(head, sections as never)].map((chunk) => Buffer.from(chunk)));
    expect(() => loadDevice(to.device, bytes)).toThrow(kind as never);
    expect(to.device.readConfig()[32]).toBe(1);
  });

  test("a newer state that says version 1 can read it may have more in it", () => {
    using to = setUp();
    const sections = [
      { name: "state", value: { ...good, later: 1 } },
      { name: "later", value: 2 },
    ];
    loadDevice(
      to.device,
      Buffer.concat([...encodeState({ ...own, version: 2 }, sections)].map((c) => Buffer.from(c))),
    );
    expect(to.device.readConfig()[32]).toBe(0);
  });
});
