import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ConsoleDevice,
  type ConsoleEnd,
  FileEnd,
  SocketEnd,
  StreamEnd,
} from "../../../devices/console/mod.ts";
import { MAX_CONSOLE_QUEUE_BYTES } from "../../../src/limits.ts";
import { silentLogger } from "../../../src/logger.ts";
import {
  connectUnix,
  createPipe,
  Deadline,
  EventLoop,
  type Fd,
  NativeBuffer,
  O,
  openFile,
  POLL,
  pollNow,
  readSome,
  type UnixSocket,
  writeSome,
} from "../../../src/sys/mod.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";

// Generous: a loaded machine must not fail a test.
const TIMEOUT_MS = 20_000;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-con-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const bytesOf = (string: string) => new TextEncoder().encode(string);

function setUp(makeEnd: (loop: EventLoop) => ConsoleEnd) {
  const stack = new DisposableStack();
  const loop = stack.use(new EventLoop());
  const end = makeEnd(loop);
  const device = stack.use(new ConsoleDevice(end));
  const driven = stack.use(new DrivenMemory());
  const receive = stack.use(new DrivenQueue(driven, device, 0));
  const transmit = stack.use(new DrivenQueue(driven, device, 1));
  const until = (done: () => boolean) => {
    const deadline = new Deadline(TIMEOUT_MS);
    while (!done()) {
      if (deadline.expired) throw new Error("it did not happen");
      loop.runOnce(10);
    }
  };
  /** Reads what the host sent, as the guest. */
  const guestReads = (sizeBytes: number) => {
    let got = Buffer.alloc(0);
    const asked = () => receive.driver.outstanding > 0 || receive.add([{ room: 4096 }]);
    until(() => {
      asked();
      receive.kick();
      for (let used = receive.take(); used !== undefined; used = receive.take()) {
        got = Buffer.concat([got, used.written.subarray(0, used.writtenBytes)]);
      }
      return got.length >= sizeBytes;
    });
    return got.toString();
  };
  return { loop, device, receive, transmit, until, guestReads, [Symbol.dispose]: () => stack.dispose() };
}

function readAvailable(fd: Fd): string {
  const buffer = new NativeBuffer(1 << 17);
  let text = "";
  while ((pollNow(fd, POLL.IN) & POLL.IN) !== 0) {
    const count = readSome(fd, buffer);
    if (typeof count !== "number" || count === 0) break;
    text += Buffer.from(buffer.bytes.subarray(0, count)).toString("latin1");
  }
  return text;
}

function send(socket: UnixSocket, text: string): void {
  const buffer = NativeBuffer.cString(text);
  socket.send(buffer, 0, text.length);
}

describe("socket", () => {
  const makeEnd = (loop: EventLoop) => new SocketEnd(join(dir, "s"), loop, silentLogger);

  test("carries both directions; output from before a client came is there when it comes", () => {
    using con = setUp(makeEnd);
    con.transmit.run([{ out: bytesOf("early ") }]);
    using client = connectUnix(join(dir, "s"));
    con.transmit.run([{ out: bytesOf("late") }]);
    let got = "";
    con.until(() => {
      got += readAvailable(client.fd);
      return got.length >= 10;
    });
    expect(got).toBe("early late");
    send(client, "typed");
    expect(con.guestReads(5)).toBe("typed");
  });

  test("a client that leaves loses nothing of what it sent, and the next one is served", () => {
    using con = setUp(makeEnd);
    const first = connectUnix(join(dir, "s"));
    send(first, "last words");
    first[Symbol.dispose]();
    expect(con.guestReads(10)).toBe("last words");
    con.transmit.run([{ out: bytesOf("for the next") }]);
    using second = connectUnix(join(dir, "s"));
    let got = "";
    con.until(() => {
      got += readAvailable(second.fd);
      return got.length >= 12;
    });
    expect(got).toBe("for the next");
  });

  test("a client that sends and leaves while the device is suspended is heard afterwards", () => {
    using con = setUp(makeEnd);
    const client = connectUnix(join(dir, "s"));
    con.until(() => con.loop.runOnce(50));
    con.receive.stop();
    con.transmit.stop();
    send(client, "kept");
    client[Symbol.dispose]();
    for (let i = 0; i < 5; i++) con.loop.runOnce(5);
    con.receive.start();
    expect(con.guestReads(4)).toBe("kept");
  });

  test("a client that does not read stops the guest, and gets every byte once it does", () => {
    using con = setUp(makeEnd);
    using client = connectUnix(join(dir, "s"));
    con.until(() => con.loop.runOnce(50));
    let sent = 0;
    const piece = () => Buffer.from(Uint8Array.from({ length: 16384 }, (_, i) => (sent + i) % 251));
    // More than the two sockets' buffers and the device's queue hold together.
    for (let i = 0; i < 63; i++) {
      con.transmit.add([{ out: piece() }]);
      sent += 16384;
    }
    con.transmit.kick();
    while (con.transmit.take() !== undefined);
    expect(con.transmit.driver.outstanding).toBeGreaterThan(0);
    let got = "";
    con.until(() => {
      got += readAvailable(client.fd);
      while (con.transmit.take() !== undefined);
      return got.length >= sent;
    });
    expect(got.length).toBe(sent);
    expect([...got].every((character, i) => character.charCodeAt(0) === i % 251)).toBe(true);
    expect(con.transmit.driver.outstanding).toBe(0);
  });

  test("the socket file is gone afterwards", () => {
    setUp(makeEnd)[Symbol.dispose]();
    expect(existsSync(join(dir, "s"))).toBe(false);
  });
});

test("a file gets the output appended", () => {
  const path = join(dir, "log");
  writeFileSync(path, "before ");
  using con = setUp((loop) => new FileEnd(path, loop, silentLogger));
  con.transmit.run([{ out: bytesOf("after") }]);
  expect(readFileSync(path, "utf8")).toBe("before after");
});

test("a file on a full disk keeps the guest's output here", () => {
  const warnings: string[] = [];
  const logger = { ...silentLogger, warn: (message: string) => void warnings.push(message) };
  using con = setUp((loop) => new FileEnd("/dev/full", loop, logger));
  for (let i = 0; i < 6; i++) con.transmit.add([{ out: new Uint8Array(16384) }]);
  con.transmit.kick();
  expect(warnings).toEqual([expect.stringContaining("ENOSPC")]);
  let taken = 0;
  while (con.transmit.take() !== undefined) taken++;
  expect(taken).toBe(MAX_CONSOLE_QUEUE_BYTES / 16384);
});

describe("stream", () => {
  test("pipes carry both directions, and the input's end ends nothing else", () => {
    using toGuest = createPipe();
    using toHost = createPipe();
    using con = setUp(
      (loop) => new StreamEnd(toGuest.readEnd.duplicate(), toHost.writeEnd.duplicate(), loop),
    );
    writeSome(toGuest.writeEnd, NativeBuffer.cString("in"), 0, 2);
    expect(con.guestReads(2)).toBe("in");
    toGuest.writeEnd[Symbol.dispose]();
    toGuest.readEnd[Symbol.dispose]();
    for (let i = 0; i < 5; i++) con.loop.runOnce(5);
    con.transmit.run([{ out: bytesOf("out") }]);
    expect(readAvailable(toHost.readEnd)).toBe("out");
  });

  test("a regular file as input is read to its end", () => {
    const path = join(dir, "input");
    writeFileSync(path, "x".repeat(50_000));
    using con = setUp(
      (loop) => new StreamEnd(openFile(path, O.RDONLY), openFile("/dev/null", O.WRONLY), loop),
    );
    expect(con.guestReads(50_000)).toBe("x".repeat(50_000));
  });

  test("output that nobody reads any more does not stop the guest", () => {
    using toGuest = createPipe();
    const toHost = createPipe();
    using con = setUp(
      (loop) => new StreamEnd(toGuest.readEnd.duplicate(), toHost.writeEnd.duplicate(), loop),
    );
    toHost[Symbol.dispose]();
    for (let i = 0; i < 50; i++) con.transmit.run([{ out: new Uint8Array(16384) }]);
    expect(con.transmit.driver.outstanding).toBe(0);
  });
});
