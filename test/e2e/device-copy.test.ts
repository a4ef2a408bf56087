import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deviceTypes } from "../../src/frontend/mod.ts";
import { connectUnix } from "../../src/sys/mod.ts";
import { PROGRAM } from "../bin/run-vhu.ts";
import { BlkDriver, Driver, DriverMemory } from "../support/driver/mod.ts";
import { startVhu } from "../support/vhu-process.ts";

const TIMEOUT_MS = 120_000;
const MEMORY_BYTES = 16 << 20;
const BLOCK_BYTES = 4096;
const BLOCKS = 8192;

let dir: string;
let image: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-copy-"));
  image = join(dir, "disk.raw");
  writeFileSync(image, "");
  truncateSync(image, BLOCKS * BLOCK_BYTES);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Where write number `sequence` goes: every block in turn, but not in order. 5 has no factor in common with 8192. */
const blockOf = (sequence: number) => (sequence * 5) % BLOCKS;

/** A block that says throughout which write it came from. */
const contentOf = (sequence: number) =>
  new Uint8Array(new Uint32Array(BLOCK_BYTES / 4).fill(sequence).buffer);

/** The last write that a copy has of each block; fails on a block that two writes made. */
function sequencesIn(path: string): number[] {
  const words = new Uint32Array(readFileSync(path).buffer);
  return Array.from({ length: BLOCKS }, (_, block) => {
    const own = words.subarray((block * BLOCK_BYTES) / 4, ((block + 1) * BLOCK_BYTES) / 4);
    if (own.some((word) => word !== own[0])) throw new Error(`block ${block} is torn`);
    return own[0]!;
  });
}

/** What the blocks hold after the writes 1 to `last`. */
function sequencesAfter(last: number): number[] {
  const blocks = new Array<number>(BLOCKS).fill(0);
  for (let sequence = Math.max(1, last - BLOCKS + 1); sequence <= last; sequence++)
    blocks[blockOf(sequence)] = sequence;
  return blocks;
}

interface Copy {
  readonly path: string;
  readonly process: Bun.Subprocess;
  /** The last write that was acknowledged before the copy was asked for. */
  readonly acknowledged: number;
}

function startCopy(path: string, acknowledged: number): Copy {
  const words = ["device", "copy", `device:${join(dir, "c")}`, path];
  return {
    path,
    process: Bun.spawn([...PROGRAM, ...words], { stdio: ["ignore", "ignore", "inherit"] }),
    acknowledged,
  };
}

test(
  "a copy under load is the disk at one point in time: all writes up to one, and none after it",
  async () => {
    await using vhu = startVhu([
      ...["device", "run", "blk", "--image", image, "--socket", join(dir, "s"), "--control", join(dir, "c")],
    ]);
    await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
    using memory = new DriverMemory(MEMORY_BYTES);
    using driver = new Driver(connectUnix(join(dir, "s")), memory, { type: deviceTypes.blk, queueCount: 1 });
    driver.start();
    const disk = new BlkDriver(driver, BLOCK_BYTES);
    const copies: Copy[] = [];
    let sequence = 0;
    const write = () => {
      sequence++;
      disk.write(0, blockOf(sequence) * BLOCK_BYTES, contentOf(sequence));
    };
    while (sequence < BLOCKS) write();
    while (copies.length < 3 || copies.at(-1)!.process.exitCode === null) {
      if (copies.length === 0 || copies.at(-1)!.process.exitCode !== null) {
        copies.push(startCopy(join(dir, `copy${copies.length}`), sequence));
      }
      for (let index = 0; index < 200; index++) write();
      await Bun.sleep(0);
    }
    for (const { path, process, acknowledged } of copies) {
      expect(await process.exited).toBe(0);
      const blocks = sequencesIn(path);
      const last = Math.max(...blocks);
      expect(last).toBeGreaterThanOrEqual(acknowledged);
      expect(last).toBeLessThan(sequence);
      expect(blocks).toEqual(sequencesAfter(last));
    }
    // The device went on each time: its own image has all writes.
    expect(sequencesIn(image)).toEqual(sequencesAfter(sequence));
    expect(await vhu.end("SIGTERM")).toBe(0);
  },
  TIMEOUT_MS,
);

test(
  "a copy that is killed lets the device go on",
  async () => {
    const file = openSync(image, "r+");
    await Bun.spawn(["dd", "if=/dev/zero", `of=${image}`, "bs=1M", "count=32", "conv=notrunc", "status=none"])
      .exited;
    await using vhu = startVhu([
      ...["device", "run", "blk", "--image", image, "--socket", join(dir, "s"), "--control", join(dir, "c")],
    ]);
    await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
    await using copy = startVhu(["device", "copy", `device:${join(dir, "c")}`, join(dir, "copy")]);
    await vhu.waitForStderr(/is tracked for a copy/, TIMEOUT_MS);
    await copy.end("SIGKILL");
    await vhu.waitForStderr(/nothing is tracked/, TIMEOUT_MS);
    using memory = new DriverMemory(MEMORY_BYTES);
    using driver = new Driver(connectUnix(join(dir, "s")), memory, { type: deviceTypes.blk, queueCount: 1 });
    driver.start();
    new BlkDriver(driver, BLOCK_BYTES).write(0, 0, contentOf(7));
    const bytes = new Uint32Array(1);
    readSync(file, bytes, 0, 4, 0);
    closeSync(file);
    expect(bytes[0]).toBe(7);
  },
  TIMEOUT_MS,
);

test(
  "the guest's disk serves on while it is copied; zeros and discards of that time are in the copy, too",
  async () => {
    await Bun.spawn([
      "dd",
      "if=/dev/urandom",
      `of=${image}`,
      "bs=1M",
      "count=32",
      "conv=notrunc",
      "status=none",
    ]).exited;
    await using vhu = startVhu([
      ...["device", "run", "blk", "--image", image, "--socket", join(dir, "s"), "--control", join(dir, "c")],
    ]);
    await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
    using memory = new DriverMemory(MEMORY_BYTES);
    using driver = new Driver(connectUnix(join(dir, "s")), memory, { type: deviceTypes.blk, queueCount: 1 });
    driver.start();
    const disk = new BlkDriver(driver, BLOCK_BYTES);
    await using copy = startVhu(["device", "copy", `device:${join(dir, "c")}`, join(dir, "copy"), "--json"]);
    await vhu.waitForStderr(/is tracked for a copy/, TIMEOUT_MS);
    // Wherever the copy is, it makes no step, and the disk serves.
    copy.process.kill("SIGSTOP");
    expect(vhu.stderr()).not.toContain("suspended by");
    for (const [block, content] of [
      [0, contentOf(1)],
      [1, new Uint8Array(BLOCK_BYTES)],
      [BLOCKS - 1, contentOf(2)],
    ] as const)
      disk.write(0, block * BLOCK_BYTES, content);
    copy.process.kill("SIGCONT");
    expect(await copy.process.exited).toBe(0);
    const { method, passes } = JSON.parse(copy.stdout().trim().split("\n").at(-1)!);
    if (method === "copy") expect(passes).toBeGreaterThanOrEqual(1);
    expect(Buffer.compare(readFileSync(join(dir, "copy")), readFileSync(image))).toBe(0);
    expect(vhu.stderr()).toMatch(/suspended by[\s\S]*resumed/);
    // Two copies at a time: the second one finds the changes taken, and copies the disk while it stands still.
    const both = [startCopy(join(dir, "x"), 0), startCopy(join(dir, "y"), 0)];
    for (const { path, process } of both) {
      expect(await process.exited).toBe(0);
      expect(Buffer.compare(readFileSync(path), readFileSync(image))).toBe(0);
    }
  },
  TIMEOUT_MS,
);
