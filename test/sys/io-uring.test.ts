import { describe, expect, test } from "bun:test";
import { tmpdir } from "node:os";
import {
  createEventFd,
  createPipe,
  Deadline,
  drainEvent,
  Epoll,
  FALLOC,
  type Fd,
  IoUring,
  IoVector,
  ioUringObstacle,
  NativeBuffer,
  openTemporaryFile,
  POLL,
  signalEvent,
  truncateFile,
} from "../../src/sys/mod.ts";

const obstacle = ioUringObstacle();
if (obstacle !== undefined) console.error(`skipped, no io_uring: ${obstacle}`);

const ENOSPC = 28;
const EBADF = 9;
const EFAULT = 14;
const ECANCELED = 125;

/** Submits what is prepared and gives all completions, by token. */
function complete(ring: IoUring, count: number): Map<number, number> {
  const results = new Map<number, number>();
  ring.submit(count, 10_000);
  while (ring.reap()) results.set(ring.token, ring.result);
  return results;
}

function fileOf(sizeBytes: number): Fd {
  const file = openTemporaryFile(tmpdir());
  truncateFile(file, sizeBytes);
  return file;
}

describe.skipIf(obstacle !== undefined)("io_uring", () => {
  test("writes, syncs and reads, by registered and by plain file, with one and several pieces", () => {
    using ring = IoUring.create({ entries: 8 });
    using file = fileOf(0);
    ring.registerFiles([file]);
    const out = new NativeBuffer(8192);
    for (let i = 0; i < 8192; i++) out.bytes[i] = i * 7;
    expect(ring.write(1, 0, out.address, 8192, 4096)).toBe(true);
    expect(complete(ring, 1)).toEqual(new Map([[1, 8192]]));
    ring.syncData(2, 0);
    expect(complete(ring, 1)).toEqual(new Map([[2, 0]]));
    const into = new NativeBuffer(8192);
    const vector = new IoVector(2);
    vector.push(into.address + 4096, 4096);
    vector.push(into.address, 4096);
    ring.readv(3, ring.unregistered(file), vector.address, 2, 4096);
    ring.submit(1);
    expect(ring.reap()).toBe(true);
    expect([ring.token, ring.result, ring.isMore]).toEqual([3, 8192, false]);
    expect(ring.reap()).toBe(false);
    expect(into.bytes.subarray(4096)).toEqual(out.bytes.subarray(0, 4096));
    expect(into.bytes.subarray(0, 4096)).toEqual(out.bytes.subarray(4096));
    vector.clear();
    vector.push(out.address, 100);
    vector.push(out.address + 500, 28);
    ring.writev(4, 0, vector.address, 2, 2 ** 33);
    ring.read(5, 0, into.address, 64, 4096);
    expect(complete(ring, 2)).toEqual(
      new Map([
        [4, 128],
        [5, 64],
      ]),
    );
    ring.read(6, 0, into.address, 256, 2 ** 33 + 100);
    expect(complete(ring, 1)).toEqual(new Map([[6, 28]]));
    expect(into.bytes.subarray(0, 28)).toEqual(out.bytes.subarray(500, 528));
  });

  test("a read at the end of the file is short, one beyond it gives 0", () => {
    using ring = IoUring.create({ entries: 4 });
    using file = fileOf(1000);
    const into = new NativeBuffer(4096);
    ring.read(1, ring.unregistered(file), into.address, 4096, 600);
    ring.read(2, ring.unregistered(file), into.address, 4096, 5000);
    expect(complete(ring, 2)).toEqual(
      new Map([
        [1, 400],
        [2, 0],
      ]),
    );
  });

  test("errors are negative results of their request alone", () => {
    using ring = IoUring.create({ entries: 4 });
    using file = fileOf(4096);
    using pipe = createPipe();
    ring.registerFiles([file]);
    const into = new NativeBuffer(16);
    ring.read(1, 5, into.address, 16, 0);
    ring.read(2, 0, 4096, 16, 0);
    ring.write(3, ring.unregistered(pipe.readEnd), into.address, 16, 0);
    ring.read(4, 0, into.address, 16, 0);
    expect(complete(ring, 4)).toEqual(
      new Map([
        [1, -EBADF],
        [2, -EFAULT],
        [3, -EBADF],
        [4, 16],
      ]),
    );
  });

  test("fallocate punches holes and refuses what the file system has no room for", () => {
    using ring = IoUring.create({ entries: 4 });
    using file = fileOf(8192);
    const bytes = new NativeBuffer(8192);
    bytes.bytes.fill(9);
    const name = ring.unregistered(file);
    ring.write(1, name, bytes.address, 8192, 0);
    complete(ring, 1);
    ring.fallocate(2, name, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 0, 4096);
    expect(complete(ring, 1)).toEqual(new Map([[2, 0]]));
    ring.read(3, name, bytes.address, 8192, 0);
    expect(complete(ring, 1)).toEqual(new Map([[3, 8192]]));
    expect([bytes.bytes[0], bytes.bytes[4095], bytes.bytes[4096]]).toEqual([0, 0, 9]);
    ring.fallocate(4, name, 0, 0, 2 ** 45);
    expect([-ENOSPC, -27]).toContain(complete(ring, 1).get(4)!);
  });

  test("a full submission ring refuses, and goes on after a submit; tokens survive many rounds", () => {
    using ring = IoUring.create({ entries: 8, completions: 32 });
    expect([ring.capacity, ring.completionCapacity]).toEqual([8, 32]);
    let token = 0xffff_fff0;
    for (let round = 0; round < 1000; round++) {
      const first = token;
      for (let i = 0; i < 8; i++) expect(ring.nop(token++ >>> 0)).toBe(true);
      expect(ring.nop(1)).toBe(false);
      expect([ring.prepared, ring.inFlight]).toEqual([8, 0]);
      expect(ring.submit()).toBe(8);
      expect([ring.prepared, ring.inFlight]).toEqual([0, 8]);
      for (let i = 0; i < 8; i++) {
        expect(ring.hasCompletion).toBe(true);
        expect(ring.reap()).toBe(true);
        expect(ring.token).toBe((first + i) >>> 0);
      }
      expect(ring.hasCompletion).toBe(false);
      expect(ring.submit()).toBe(0);
    }
  });

  test("hundreds of reads in flight all come back with their own bytes", () => {
    const count = 512;
    using ring = IoUring.create({ entries: 64, completions: 1024 });
    using file = fileOf(0);
    ring.registerFiles([file]);
    const words = new NativeBuffer(count * 512);
    for (let i = 0; i < count; i++) words.view.setUint32(i * 512, i + 1, true);
    ring.write(0, 0, words.address, words.sizeBytes, 0);
    complete(ring, 1);
    const into = new NativeBuffer(count * 512);
    for (let i = 0; i < count; i++) {
      if (!ring.read(i, 0, into.address + i * 512, 512, i * 512)) {
        expect(ring.submit()).toBe(64);
        i--;
      }
    }
    ring.submit(count);
    const seen = new Set<number>();
    while (ring.reap()) {
      expect(ring.result).toBe(512);
      expect(into.view.getUint32(ring.token * 512, true)).toBe(ring.token + 1);
      seen.add(ring.token);
    }
    expect(seen.size).toBe(count);
  });

  test("more completions than the ring holds are kept by the kernel until there is room", () => {
    using ring = IoUring.create({ entries: 8, completions: 8 });
    for (let i = 0; i < 24; i++) {
      if (i > 0 && i % 8 === 0) ring.submit();
      ring.nop(i);
    }
    const tokens: number[] = [];
    while (tokens.length < 24) {
      ring.submit();
      while (ring.reap()) tokens.push(ring.token);
    }
    expect(tokens.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, i) => i));
  });

  test("a multishot poll tells of every signal until it is cancelled", () => {
    using ring = IoUring.create({ entries: 4 });
    using event = createEventFd("polled");
    ring.pollMultishot(7, ring.unregistered(event), POLL.IN);
    ring.submit();
    for (let i = 0; i < 3; i++) {
      signalEvent(event);
      ring.submit(1, 10_000);
      expect(ring.reap()).toBe(true);
      expect([ring.token, ring.result & POLL.IN, ring.isMore]).toEqual([7, POLL.IN, true]);
      expect(drainEvent(event)).toBe(true);
    }
    ring.cancel(8, 7);
    const last = complete(ring, 2);
    expect(last).toEqual(
      new Map([
        [8, 0],
        [7, -ECANCELED],
      ]),
    );
    expect(ring.inFlight).toBe(0);
  });

  test("a wait ends when its time is over, and deferred completions show without a system call", () => {
    using ring = IoUring.create({ entries: 4 });
    using pipe = createPipe();
    const into = new NativeBuffer(8);
    ring.read(1, ring.unregistered(pipe.readEnd), into.address, 8, 0);
    expect(ring.submit(1, 20)).toBe(1);
    expect(ring.reap()).toBe(false);
    ring.write(2, ring.unregistered(pipe.writeEnd), into.address, 8, 0);
    ring.submit();
    while (!ring.hasDeferred && !ring.hasCompletion) {}
    const results = complete(ring, 2);
    expect(results).toEqual(
      new Map([
        [2, 8],
        [1, 8],
      ]),
    );
  });

  test("a thread that sleeps in epoll is woken by a completion that another process brings", () => {
    using ring = IoUring.create({ entries: 4 });
    using epoll = new Epoll();
    epoll.add(ring.fd, POLL.IN, 5);
    using pipe = createPipe();
    const into = new NativeBuffer(8);
    for (let i = 0; i < 3; i++) {
      ring.read(i, ring.unregistered(pipe.readEnd), into.address, 1, 0);
      ring.submit();
      const command = ["sh", "-c", "sleep 0.05; printf x"];
      const child = Bun.spawn(command, { stdio: ["ignore", pipe.writeEnd.number, "inherit"] });
      const deadline = new Deadline(10_000);
      // A wait ends with the ring's fd, or early because the kernel had completions to run in this thread.
      while (!ring.reap()) {
        expect(deadline.expired).toBe(false);
        epoll.wait(deadline.pollTimeoutMs);
        ring.submit();
      }
      expect([ring.token, ring.result]).toEqual([i, 1]);
      expect(child.pid).toBeGreaterThan(0);
    }
  });
});
