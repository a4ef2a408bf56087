import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConsoleDevice, PtyEnd } from "../../../devices/console/mod.ts";
import { UsageError } from "../../../src/errors.ts";
import {
  Deadline,
  EventLoop,
  type Fd,
  NativeBuffer,
  O,
  openFile,
  readSome,
  writeSome,
} from "../../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";

// Generous: a loaded machine must not fail a test.
const TIMEOUT_MS = 20_000;
const bytesOf = (string: string) => new TextEncoder().encode(string);

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-pty-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function setUp() {
  using owned = new DisposableStack();
  const loop = owned.use(new EventLoop());
  const end = new PtyEnd(loop, join(dir, "tty"));
  const device = owned.use(new ConsoleDevice(end));
  const driven = owned.use(new DrivenMemory());
  const receive = owned.use(new DrivenQueue(driven, device, 0));
  const transmit = owned.use(new DrivenQueue(driven, device, 1));
  const until = (done: () => boolean) => {
    const deadline = new Deadline(TIMEOUT_MS);
    while (!done()) {
      if (deadline.expired) throw new Error("it did not happen");
      loop.runOnce(10);
    }
  };
  const stack = owned.move();
  return { end, device, receive, transmit, until, [Symbol.dispose]: () => stack.dispose() };
}

const openTerminal = () => openFile(join(dir, "tty"), O.RDWR | O.NONBLOCK);

function readText(fd: Fd): string {
  const buffer = new NativeBuffer(4096);
  const count = readSome(fd, buffer);
  return typeof count === "number" ? new TextDecoder().decode(buffer.bytes.subarray(0, count)) : "";
}

test("carries both directions unchanged, whoever comes and goes", () => {
  using con = setUp();
  con.transmit.run([{ out: bytesOf("early\n\x03\x00") }]);
  for (const word of ["a\r\n", "\x03\x04\x7f"]) {
    using terminal = openTerminal();
    con.transmit.run([{ out: bytesOf(word) }]);
    let got = "";
    con.until(() => {
      got += readText(terminal);
      return got.endsWith(word);
    });
    expect(got).toBe(word === "a\r\n" ? `early\n\x03\x00${word}` : word);
    con.receive.add([{ room: 16 }]);
    con.receive.kick();
    writeSome(terminal, NativeBuffer.cString(word), 0, word.length);
    let come = "";
    con.until(() => {
      const used = con.receive.take();
      if (used !== undefined) come += new TextDecoder().decode(used.written.subarray(0, used.writtenBytes));
      if (used !== undefined && come.length < word.length) con.receive.add([{ room: 16 }]);
      con.receive.kick();
      return come.length >= word.length;
    });
    expect(come).toBe(word);
  }
});

test("what nobody has read, and what nobody was given, is in the state", () => {
  using from = setUp();
  using terminal = openTerminal();
  from.transmit.run([{ out: bytesOf("read, ") }]);
  expect(readText(terminal)).toBe("read, ");
  from.transmit.run([{ out: bytesOf("unread") }]);
  from.receive.stop();
  from.transmit.stop();
  writeSome(terminal, NativeBuffer.cString("typed"), 0, 5);
  const state = saveDevice(from.device);
  expect(readText(terminal)).toBe("");
  {
    using to = setUp();
    using other = openTerminal();
    loadDevice(to.device, state);
    from.receive.moveTo(to.device);
    from.transmit.moveTo(to.device);
    expect(readText(other)).toBe("unread");
    expect(from.receive.run([{ room: 16 }]).writtenBytes).toBe(5);
    from.receive.stop();
    from.transmit.stop();
  }
  // The source, where it goes on instead, gives it again to its own reader.
  from.receive.moveTo(from.device);
  from.transmit.moveTo(from.device);
  expect(readText(terminal)).toBe("unread");
});

test("the link follows, and goes", () => {
  const link = join(dir, "tty");
  symlinkSync("/dev/pts/of-a-killed-process", link);
  const con = setUp();
  expect(readlinkSync(link)).toBe(con.end.path);
  con[Symbol.dispose]();
  expect(existsSync(link)).toBe(false);
  writeFileSync(link, "a file");
  using loop = new EventLoop();
  expect(() => new PtyEnd(loop, link)).toThrow(UsageError);
});

test("another one's link is left alone", () => {
  const con = setUp();
  rmSync(join(dir, "tty"));
  symlinkSync("/dev/null", join(dir, "tty"));
  con[Symbol.dispose]();
  expect(readlinkSync(join(dir, "tty"))).toBe("/dev/null");
});
