import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ChangeMap } from "../../../devices/blk/change-map.ts";
import { BlkDevice, DiskImage } from "../../../devices/blk/mod.ts";
import { createRunner } from "../../../devices/blk/ring-program.ts";
import { SharedSettings } from "../../../devices/blk/shared-settings.ts";
import type { QueueRunner } from "../../../src/backend/mod.ts";
import { O, openFile } from "../../../src/sys/mod.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";
import {
  FLUSH,
  header,
  IN,
  IOERR,
  OK,
  OUT,
  out,
  pattern,
  room,
  segment,
  setUpDisk,
  WRITE_ZEROES,
} from "./blk-rig.ts";

const MiB = 1 << 20;
const WAYS = ["sync", "mixed", "uring"] as const;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** A file system of 1 MiB, in this test's folder. */
function tinyFileSystem(): Disposable {
  const { exitCode, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "none", dir]);
  if (exitCode !== 0) throw new Error(stderr.toString());
  return { [Symbol.dispose]: () => void Bun.spawnSync(["umount", "-l", dir]) };
}

describe.each(WAYS)("by %s", (way) => {
  test.skipIf(process.getuid!() !== 0)("a full file system is an I/O error with the offset", () => {
    using _mounted = tinyFileSystem();
    const path = join(dir, "disk.raw");
    writeFileSync(path, "");
    truncateSync(path, 8 * MiB);
    using disk = setUpDisk(path, { way });
    const data = pattern(256 << 10, 3);
    const statuses = Array.from(
      { length: 8 },
      (_, i) => disk.request([out(header(OUT, i * 512)), out(data), room(1)]).status,
    );
    expect(statuses[0]).toBe(OK);
    expect(statuses.at(-1)).toBe(IOERR);
    const line = disk.logger.lines.find(({ message }) => message.includes("ENOSPC"));
    expect(line?.message).toContain(path);
    const failed = statuses.indexOf(IOERR);
    expect(line?.details).toMatchObject({ offset: failed * data.length, sizeBytes: data.length });
    // It goes on: what is there can be read, and space that is given back can be used.
    expect(disk.request([out(header(IN)), room(data.length), room(1)]).status).toBe(OK);
    expect(disk.request([out(header(WRITE_ZEROES)), out(segment(0, 2048, 1)), room(1)]).status).toBe(OK);
    expect(disk.request([out(header(OUT, 8192)), out(data), room(1)]).status).toBe(OK);
  });

  test.skipIf(process.getuid!() !== 0)(
    "zeros where the file system has no mode for them keep their space",
    () => {
      using _mounted = tinyFileSystem();
      const path = join(dir, "disk.raw");
      writeFileSync(path, pattern(512 << 10, 1));
      using disk = setUpDisk(path, { way });
      const before = statSync(path).blocks;
      expect(disk.request([out(header(WRITE_ZEROES)), out(segment(3, 500)), room(1)]).status).toBe(OK);
      expect(statSync(path).blocks).toBe(before);
      const wanted = pattern(512 << 10, 1).fill(0, 3 * 512, 503 * 512);
      expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
    },
  );

  test("EIO is an I/O error with the offset, and the queue goes on", () => {
    // The first page of a process's memory is never there, and reading it is what the kernel answers EIO to.
    using file = openFile("/proc/self/mem", O.RDWR);
    const settings = new SharedSettings();
    settings.capacityBytes = MiB;
    const logger = recordingLogger();
    const image = DiskImage.open(blank(), {});
    using device = new RunnerDevice(image, { lock: false }, (queue) =>
      createRunner(
        queue,
        {
          files: { buffered: file.number, direct: undefined },
          path: "bad.raw",
          readOnly: false,
          io: way,
          settings: settings.buffer,
          changes: { capacityBytes: MiB, buffer: new ChangeMap(MiB).buffer },
        },
        logger,
      ),
    );
    using memory = new DrivenMemory();
    using queue = new DrivenQueue(memory, device, 0);
    expect(queue.run([out(header(IN, 2)), room(1024), room(1)]).written.at(-1)).toBe(IOERR);
    expect(queue.run([out(header(OUT, 4)), out(pattern(512, 1)), room(1)]).written.at(-1)).toBe(IOERR);
    expect(queue.run([out(header(FLUSH)), room(1)]).written.at(-1)).toBe(IOERR);
    expect(logger.lines.map(({ message }) => message)).toEqual([
      "bad.raw: read failed: EIO",
      "bad.raw: write failed: EIO",
      "bad.raw: flush failed: EINVAL",
    ]);
    expect(logger.lines[0]?.details).toMatchObject({ offset: 1024, sizeBytes: 1024 });
    expect(logger.lines[1]?.details).toMatchObject({ offset: 2048, sizeBytes: 512 });
    queue.stop();
  });
});

function blank(): string {
  const path = join(dir, "blank.raw");
  writeFileSync(path, new Uint8Array(512));
  return path;
}

type Runner = ReturnType<typeof createRunner>;

/** A disk whose queue runs what the test says. */
class RunnerDevice extends BlkDevice {
  #runner: Runner | undefined;

  constructor(
    image: DiskImage,
    options: ConstructorParameters<typeof BlkDevice>[1],
    readonly make: (queue: Parameters<BlkDevice["startQueue"]>[0]) => Runner,
  ) {
    super(image, options);
  }

  override startQueue(queue: Parameters<BlkDevice["startQueue"]>[0]): QueueRunner {
    const runner = this.make(queue);
    this.#runner = runner;
    return {
      onKick: () => {
        for (let busy = true; busy; ) busy = runner.poll() || !(runner.drain?.() ?? true);
      },
    };
  }

  override stopQueue(_index: number): void {
    this.#runner?.[Symbol.dispose]();
    this.#runner = undefined;
  }
}
