import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  DISCARD,
  header,
  IN,
  OK,
  OUT,
  out,
  pattern,
  room,
  segment,
  setUpDisk,
  WRITE_ZEROES,
} from "./blk-rig.ts";

const SIZE_BYTES = 4 << 20;
const isPossible = process.getuid!() === 0 && Bun.which("losetup") !== null;

let dir: string;
let device: string | undefined;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
});
afterEach(() => {
  if (device !== undefined) Bun.spawnSync(["losetup", "-d", device]);
  rmSync(dir, { recursive: true, force: true });
});

test.skipIf(!isPossible).each(["sync", "uring"] as const)(
  "a block device with sectors of 4 KiB, past the page cache (%s)",
  (way) => {
    const file = join(dir, "backing");
    writeFileSync(file, pattern(SIZE_BYTES, 1));
    const made = Bun.spawnSync(["losetup", "-b", "4096", "-f", "--show", file]);
    if (made.exitCode !== 0) throw new Error(made.stderr.toString());
    device = made.stdout.toString().trim();
    const wanted = pattern(SIZE_BYTES, 1);
    {
      using disk = setUpDisk(device, { way, direct: true });
      const config = Buffer.from(disk.device.readConfig());
      expect(Number(config.readBigUInt64LE(0)) * 512).toBe(SIZE_BYTES);
      expect([config.readUInt32LE(20), config[24]]).toEqual([4096, 0]);
      const read = disk.request([out(header(IN, 8)), room(8192), room(1)]);
      expect([read.status, Buffer.compare(read.data, wanted.subarray(4096, 12288))]).toEqual([OK, 0]);
      // Less than a sector of the device: only the page cache can do it.
      const data = pattern(512, 9);
      expect(disk.request([out(header(OUT, 3)), out(data), room(1)]).status).toBe(OK);
      wanted.set(data, 3 * 512);
      expect(disk.request([out(header(WRITE_ZEROES)), out(segment(64, 128)), room(1)]).status).toBe(OK);
      expect(disk.request([out(header(DISCARD)), out(segment(1024, 1024)), room(1)]).status).toBe(OK);
      wanted.fill(0, 64 * 512, 192 * 512).fill(0, 1024 * 512, 2048 * 512);
      const whole = disk.request([out(header(IN)), room(SIZE_BYTES / 2), room(1)]);
      expect([whole.status, Buffer.compare(whole.data, wanted.subarray(0, SIZE_BYTES / 2))]).toEqual([OK, 0]);
      disk.device.enterSuspendedState();
    }
    Bun.spawnSync(["losetup", "-d", device]);
    device = undefined;
    expect(Buffer.compare(readFileSync(file), wanted)).toBe(0);
  },
);
