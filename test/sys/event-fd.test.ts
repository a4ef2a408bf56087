import { describe, expect, test } from "bun:test";
import {
  createEventFd,
  createPipe,
  drainEvent,
  Fd,
  growPipe,
  libc,
  NativeBuffer,
  O,
  openFile,
  readSome,
  signalEvent,
  UnixSocket,
  writeSome,
} from "../../src/sys/mod.ts";

/** An eventfd that blocks, as crosvm's do. */
function blockingEventFd(): Fd {
  return new Fd(libc.eventfd(0, O.CLOEXEC), "blocking eventfd");
}

const FULL = new NativeBuffer(8);
FULL.bytes.fill(0xff);
FULL.bytes[0] = 0xfe;

describe.each([
  ["of our own", () => createEventFd("own")],
  ["that blocks", blockingEventFd],
] as const)("an eventfd %s", (_what, make) => {
  test("counts, is drained as a whole, and takes any number of signals", () => {
    using event = make();
    expect(drainEvent(event)).toBe(false);
    for (let i = 0; i < 5_000; i++) expect(signalEvent(event)).toBe(true);
    const count = new NativeBuffer(8);
    expect(libc.read(event.number, count.address, 8)).toBe(8);
    expect(count.view.getBigUint64(0, true)).toBe(5_000n);
    signalEvent(event);
    expect(drainEvent(event)).toBe(true);
    expect(drainEvent(event)).toBe(false);
  });

  test("that is full holds nobody, and is drained as any other", () => {
    using event = make();
    libc.write(event.number, FULL.address, 8);
    for (let i = 0; i < 3; i++) signalEvent(event);
    expect(drainEvent(event)).toBe(true);
    expect(drainEvent(event)).toBe(false);
  });
});

test("pipes and sockets that block are signalled and drained without waiting", () => {
  using pipe = createPipe();
  const [a, b] = UnixSocket.pair();
  using _a = a;
  using _b = b;
  for (const [writer, reader] of [
    [pipe.writeEnd, pipe.readEnd],
    [a.fd, b.fd],
  ] as const) {
    let signals = 0;
    while (signalEvent(writer)) signals++;
    expect(signals).toBeGreaterThan(1);
    for (let i = 0; i < signals; i++) expect(drainEvent(reader)).toBe(true);
    expect(drainEvent(reader)).toBe(false);
    expect(signalEvent(writer)).toBe(true);
  }
});

test("a full pipe given as an event fd never blocks", () => {
  using pipe = createPipe();
  growPipe(pipe.writeEnd, 4096);
  const block = new NativeBuffer(4096);
  writeSome(pipe.writeEnd, block, 0, 4096);
  expect(signalEvent(pipe.writeEnd)).toBe(false);
  expect(readSome(pipe.readEnd, block)).toBe(4096);
  expect(signalEvent(pipe.writeEnd)).toBe(true);
  expect(drainEvent(pipe.readEnd)).toBe(true);
  expect(drainEvent(pipe.readEnd)).toBe(false);
});

test("a pipe whose reader is gone is not an error and kills nobody", () => {
  using pipe = createPipe();
  pipe.readEnd[Symbol.dispose]();
  expect(signalEvent(pipe.writeEnd)).toBe(false);
});

test("what cannot be asked not to wait is refused by name", () => {
  using terminal = openFile("/dev/ptmx", O.RDWR);
  expect(() => drainEvent(terminal)).toThrow("EOPNOTSUPP");
  expect(() => signalEvent(terminal)).toThrow("neither an eventfd, a pipe nor a socket");
});

test.each(["drain", "fill"] as const)(
  "a peer's thread that races against it cannot hold it: %s",
  async (mode) => {
    using event = blockingEventFd();
    const shared = new Int32Array(new SharedArrayBuffer(12));
    const worker = new Worker(new URL("../support/event-racer.ts", import.meta.url).href);
    const messages: string[] = [];
    const said = (what: string) =>
      new Promise<void>((resolve) => {
        worker.onmessage = ({ data }) => {
          messages.push(data as string);
          if (data === what) resolve();
        };
      });
    const ready = said("ready");
    worker.postMessage({ fd: event.number, shared, mode });
    await ready;
    for (let i = 0; i < 50_000; i++) {
      signalEvent(event);
      if (mode === "drain") drainEvent(event);
      Atomics.add(shared, 1, 1);
    }
    const done = said("done");
    Atomics.store(shared, 0, 1);
    // The racer's own write may wait for room.
    while (!messages.includes("done")) {
      drainEvent(event);
      await Promise.race([done, new Promise((resolve) => setImmediate(resolve))]);
    }
    worker.terminate();
    expect(shared[2]).toBe(0);
  },
);
