import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PeerError, SyscallError, UsageError } from "../../src/errors.ts";
import {
  connectUnix,
  createEventFd,
  createMemfd,
  createPipe,
  createUserfaultfd,
  Deadline,
  dataRanges,
  disposeAll,
  drainEvent,
  EventLoop,
  Fd,
  IoVector,
  isSealedAgainstShrinking,
  Mapping,
  NativeBuffer,
  O,
  openFile,
  openTemporaryFile,
  POLL,
  pollNow,
  punchHole,
  readAt,
  signalEvent,
  sizeOf,
  spliceSome,
  truncateFile,
  UnixListener,
  UnixSocket,
  WOULD_BLOCK,
  waitReady,
  waitReadySync,
  writeAt,
  writeSome,
} from "../../src/sys/mod.ts";

function withFolder(run: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "vhu-sys-"));
  try {
    run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe("Fd", () => {
  test("closes once, refuses use afterwards, and a failed call names call, errno and object", () => {
    const fd = createEventFd("probe");
    fd[Symbol.dispose]();
    fd[Symbol.dispose]();
    expect(() => fd.number).toThrow("closed or taken");
    // A number that no process has open: the limit is far below.
    const stale = new Fd(2_000_000_000, "stale");
    try {
      sizeOf(stale);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(SyscallError);
      expect(error).toMatchObject({ call: "lseek(SEEK_END)", errno: "EBADF" });
    }
    stale.take();
  });

  test("duplicate refers to the same description", () => {
    using first = createEventFd("first");
    using second = first.duplicate("second");
    signalEvent(first);
    expect(drainEvent(second)).toBe(true);
    expect(drainEvent(first)).toBe(false);
  });
});

describe("Mapping", () => {
  test("shares a memfd, and a window is detached before the memory goes", () => {
    using memfd = createMemfd("shared", 8192);
    const first = Mapping.ofFd(memfd, { sizeBytes: 8192 });
    using second = Mapping.ofFd(memfd, { sizeBytes: 4096, offset: 4096 });
    const bytes = new Uint8Array(first.window(0, 8192));
    bytes[4096] = 42;
    expect(new Uint8Array(second.window(0, 1))[0]).toBe(42);
    first[Symbol.dispose]();
    expect(bytes.length).toBe(0);
    expect(isSealedAgainstShrinking(memfd)).toBe(true);
    expect(() => truncateFile(memfd, 0)).toThrow("EPERM");
  });

  test("a failed mmap is a SyscallError with the size", () => {
    using memfd = createMemfd("odd", 4096);
    expect(() => Mapping.ofFd(memfd, { sizeBytes: 4096, offset: 1 })).toThrow("EINVAL");
  });

  test("windows over 1 GiB and outside the mapping are our own bugs", () => {
    using mapping = Mapping.anonymous(2 * 2 ** 30);
    expect(() => mapping.window(0, 2 ** 30 + 1)).toThrow("1 GiB");
    expect(() => mapping.window(2 * 2 ** 30 - 1, 2)).toThrow("outside");
    const high = new Uint8Array(mapping.window(2 ** 30 + 4096, 4096));
    high[0] = 7;
    expect(high[0]).toBe(7);
  });
});

describe("UnixSocket", () => {
  test("fds arrive with the bytes they were sent with", () => {
    const [a, b] = UnixSocket.pair();
    using first = a;
    using second = b;
    using event = createEventFd("travels");
    const out = new NativeBuffer(8);
    out.bytes.set([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(first.send(out, 0, 4)).toBe(4);
    expect(first.send(out, 4, 4, [event, event])).toBe(4);
    const into = new NativeBuffer(8);
    const fds: Fd[] = [];
    expect(second.receive(into, 0, 4, fds)).toBe(4);
    expect(fds).toEqual([]);
    expect(second.receive(into, 4, 4, fds)).toBe(4);
    expect([...into.bytes]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(fds.length).toBe(2);
    signalEvent(fds[0]!);
    expect(drainEvent(event)).toBe(true);
    disposeAll(fds);
  });

  test("33 fds are cut off, none leaks", () => {
    // The sender bypasses our own limit by sending from two messages that one receive joins: not possible on a stream
    // with fds, so the limit is tried with a control buffer of our own that holds 32.
    const [a, b] = UnixSocket.pair();
    using first = a;
    using second = b;
    using event = createEventFd("many");
    const out = new NativeBuffer(1);
    expect(() => first.send(out, 0, 1, new Array(33).fill(event))).toThrow();
    first.send(out, 0, 1, new Array(32).fill(event));
    const fds: Fd[] = [];
    second.receive(out, 0, 1, fds);
    expect(fds.length).toBe(32);
    disposeAll(fds);
  });

  test("timeouts, the end of the stream, and a hung-up peer", () => {
    const [a, b] = UnixSocket.pair();
    using first = a;
    const block = new NativeBuffer(4);
    first.setTimeouts({ receiveMs: 5 });
    expect(first.receive(block, 0, 4, [])).toBe(WOULD_BLOCK);
    expect(first.receive(block, 0, 4, [], true)).toBe(WOULD_BLOCK);
    b[Symbol.dispose]();
    expect(first.receive(block, 0, 4, [])).toBe(0);
    expect(() => first.send(block, 0, 4)).toThrow(PeerError);
  });

  test("listens with mode 0600, names the peer, replaces a stale socket and never a live one", () => {
    withFolder((folder) => {
      const path = join(folder, "s");
      {
        using listener = UnixListener.listen(path);
        expect(statSync(path).mode & 0o777).toBe(0o600);
        expect(() => UnixListener.listen(path)).toThrow(UsageError);
        using client = connectUnix(path);
        using server = listener.accept();
        expect(client.peerCredentials().pid).toBe(process.pid);
        expect(server.peerCredentials().uid).toBe(process.getuid!());
      }
      expect(() => connectUnix(path)).toThrow(PeerError);
      const abandoned = UnixListener.listen(path);
      abandoned.fd[Symbol.dispose]();
      expect(() => connectUnix(path)).toThrow("nobody accepts");
      using _again = UnixListener.listen(path);
      expect(() => UnixListener.listen(join(folder, "x".repeat(200)))).toThrow(UsageError);
    });
  });
});

describe("pipes and files", () => {
  test("splice moves bytes without waiting", () => {
    using a = createPipe({ nonBlocking: true });
    using b = createPipe({ nonBlocking: true });
    expect(spliceSome(a.readEnd, b.writeEnd, 100)).toBe("would-block");
    const block = new NativeBuffer(100);
    block.bytes.fill(9);
    writeSome(a.writeEnd, block, 0, 100);
    expect(spliceSome(a.readEnd, b.writeEnd, 1000)).toBe(100);
    a.writeEnd[Symbol.dispose]();
    expect(spliceSome(a.readEnd, b.writeEnd, 1000)).toBe(0);
  });

  test("vectors of pieces are read and written at offsets beyond 4 GiB; holes are found", () => {
    using file = openTemporaryFile(tmpdir());
    const block = new NativeBuffer(8192);
    block.bytes.fill(5);
    const vector = new IoVector(2);
    vector.push(block.address, 4096);
    vector.push(block.address + 4096, 4096);
    expect(writeAt(file, vector, 5 * 2 ** 30)).toBe(8192);
    expect(sizeOf(file)).toBe(5 * 2 ** 30 + 8192);
    expect([...dataRanges(file, sizeOf(file))]).toEqual([{ offset: 5 * 2 ** 30, sizeBytes: 8192 }]);
    block.bytes.fill(0);
    vector.push(block.address, 8192);
    expect(readAt(file, vector, 5 * 2 ** 30 + 4096)).toBe(4096);
    expect(block.bytes[0]).toBe(5);
    expect(punchHole(file, 5 * 2 ** 30, 4096)).toBe(0);
    using readOnly = openFile("/dev/null", O.RDONLY);
    vector.clear();
    vector.push(block.address, 10);
    expect(writeAt(readOnly, vector, 0)).toBeLessThan(0);
  });

  test("a short transfer advances inside a piece", () => {
    const vector = new IoVector(3);
    vector.push(1000, 10);
    vector.push(2 ** 40, 20);
    vector.advance(15);
    expect([vector.count, vector.totalBytes]).toEqual([1, 15]);
    vector.advance(15);
    expect([vector.count, vector.totalBytes]).toEqual([0, 0]);
  });
});

describe("waiting", () => {
  test("poll and its asynchronous form see readiness, deadlines and abort", async () => {
    using event = createEventFd("ready");
    expect(pollNow(event, POLL.IN)).toBe(0);
    expect(waitReadySync(event, POLL.IN, new Deadline(2))).toBe(0);
    expect(await waitReady(event, POLL.IN, new Deadline(2))).toBe(0);
    const pending = waitReady(event, POLL.IN, new Deadline(60_000));
    signalEvent(event);
    expect(await pending).toBe(POLL.IN);
    drainEvent(event);
    await expect(
      waitReady(event, POLL.IN, new Deadline(60_000), AbortSignal.abort(new Error("stop"))),
    ).rejects.toThrow("stop");
  });

  test("the event loop runs handlers and timers, and handlers may end each other's watches", () => {
    using loop = new EventLoop();
    using a = createEventFd("a");
    using b = createEventFd("b");
    const seen: string[] = [];
    loop.watch(a, POLL.IN, () => {
      seen.push("a");
      drainEvent(a);
      if (loop.isWatched(b)) loop.unwatch(b);
    });
    loop.watch(b, POLL.IN, () => {
      seen.push("b");
      drainEvent(b);
      if (loop.isWatched(a)) loop.unwatch(a);
    });
    loop.schedule(1, () => seen.push("timer"));
    const cancel = loop.schedule(1, () => seen.push("cancelled"));
    cancel();
    signalEvent(a);
    signalEvent(b);
    loop.runOnce(1000);
    while (!seen.includes("timer")) loop.runOnce(1000);
    expect(seen.filter((s) => s !== "timer").length).toBe(1);
    expect(seen).not.toContain("cancelled");
  });
});

test("userfaultfd opens where the kernel allows it, else says why", () => {
  try {
    using fd = createUserfaultfd();
    expect(fd.label).toBe("userfaultfd");
  } catch (error) {
    expect(error).toMatchObject({ call: "userfaultfd" });
  }
});
