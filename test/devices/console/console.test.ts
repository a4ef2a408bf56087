import { describe, expect, test } from "bun:test";
import { BufferEnd, ConsoleDevice, consoleFeature } from "../../../devices/console/mod.ts";
import { CompatibilityError, FormatError } from "../../../src/errors.ts";
import {
  MAX_CONSOLE_CHAIN_BYTES,
  MAX_CONSOLE_QUEUE_BYTES,
  MAX_CONSOLE_SAVED_INPUT_BYTES,
} from "../../../src/limits.ts";
import { encodeState } from "../../../src/state/mod.ts";
import { RingError } from "../../../src/vring/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytesOf = (string: string) => new TextEncoder().encode(string);

function counted(start: number, sizeBytes: number): Uint8Array {
  return Uint8Array.from({ length: sizeBytes }, (_, i) => ((start + i) * 7 + ((start + i) >> 8)) & 0xff);
}

function setUp() {
  const stack = new DisposableStack();
  const end = new BufferEnd();
  const logger = recordingLogger();
  const device = stack.use(new ConsoleDevice(end, { logger }));
  return { stack, end, device, logger, [Symbol.dispose]: () => stack.dispose() };
}

function setUpRunning() {
  const base = setUp();
  const driven = base.stack.use(new DrivenMemory());
  const receive = base.stack.use(new DrivenQueue(driven, base.device, 0));
  const transmit = base.stack.use(new DrivenQueue(driven, base.device, 1));
  return { ...base, receive, transmit };
}

describe("data", () => {
  test("goes from the guest to the host, from any number of pieces", () => {
    using con = setUpRunning();
    const used = con.transmit.run([{ out: bytesOf("hello ") }, { out: bytesOf("host") }]);
    expect(used.writtenBytes).toBe(0);
    expect(text(con.end.takeOutput())).toBe("hello host");
    expect(con.transmit.calls).toBe(1);
  });

  test("goes from the host to the guest, into buffers that were there before", () => {
    using con = setUpRunning();
    con.receive.add([{ room: 4 }, { room: 4 }]);
    con.receive.add([{ room: 16 }]);
    con.receive.kick();
    expect(con.receive.take()).toBeUndefined();
    con.end.send("0123456789");
    expect(con.receive.take()).toMatchObject({ writtenBytes: 8, written: Buffer.from("01234567") });
    const rest = con.receive.take()!;
    expect([rest.writtenBytes, text(rest.written.subarray(0, 2))]).toEqual([2, "89"]);
    expect(con.receive.calls).toBe(1);
  });

  test("waits for buffers that come later", () => {
    using con = setUpRunning();
    con.end.send("later");
    expect(con.receive.run([{ room: 16 }]).writtenBytes).toBe(5);
  });

  test("a receive chain without room is given back, and the data goes into the next", () => {
    using con = setUpRunning();
    con.end.send("x");
    con.receive.add([{ out: bytesOf("?") }]);
    con.receive.add([{ room: 1 }]);
    con.receive.kick();
    expect(con.receive.take()?.writtenBytes).toBe(0);
    expect(con.receive.take()).toMatchObject({ writtenBytes: 1, written: Buffer.from("x") });
    expect(con.logger.lines).toHaveLength(1);
  });

  test("a host that takes nothing holds the guest back, and later gets every byte once", () => {
    using con = setUpRunning();
    con.end.limitTo(0);
    const size = 8192;
    let sent = 0;
    for (let i = 0; i < 20; i++) {
      con.transmit.add([{ out: counted(sent, size) }]);
      sent += size;
    }
    con.transmit.kick();
    let taken = 0;
    while (con.transmit.take() !== undefined) taken++;
    expect(taken).toBe(MAX_CONSOLE_QUEUE_BYTES / size);
    const received: Uint8Array[] = [];
    while (con.transmit.driver.outstanding > 0) {
      con.end.limitTo(5000);
      received.push(con.end.takeOutput());
      while (con.transmit.take() !== undefined) taken++;
    }
    con.end.limitTo(Infinity);
    received.push(con.end.takeOutput());
    expect(taken).toBe(20);
    expect(Buffer.compare(Buffer.concat(received), counted(0, sent))).toBe(0);
  });

  test("a guest that takes nothing holds the host back", () => {
    using con = setUpRunning();
    const all = counted(0, 3 * MAX_CONSOLE_QUEUE_BYTES);
    con.end.send(all);
    expect(con.end.unreadBytes).toBe(all.length - MAX_CONSOLE_QUEUE_BYTES);
    const received: Uint8Array[] = [];
    for (let left = all.length; left > 0; ) {
      const { writtenBytes, written } = con.receive.run([{ room: 10_000 }]);
      received.push(written.subarray(0, writtenBytes));
      left -= writtenBytes;
      con.end.send("");
    }
    expect(Buffer.compare(Buffer.concat(received), all)).toBe(0);
  });

  test("a write beyond the limit takes the queue out of service", () => {
    using con = setUpRunning();
    const piece = { out: new Uint8Array(MAX_CONSOLE_CHAIN_BYTES) };
    expect(() => con.transmit.run([piece, { out: new Uint8Array(1) }])).toThrow(RingError);
    expect(con.end.takeOutput()).toHaveLength(0);
  });
});

describe("config space", () => {
  test("shows the size, one port, and follows a resize with a notification", () => {
    using con = setUp();
    let changes = 0;
    con.device.setBackendRequestConnection({ configChange: () => changes++ } as never);
    const config = () => Buffer.from(con.device.readConfig());
    expect([config().readUInt16LE(0), config().readUInt16LE(2), config().readUInt32LE(4)]).toEqual([
      80, 25, 1,
    ]);
    con.device.resize({ columns: 132, rows: 50 });
    expect([config().readUInt16LE(0), config().readUInt16LE(2), changes]).toEqual([132, 50, 1]);
    expect(config()).toHaveLength(12);
    expect(con.device.features).toBe(consoleFeature.SIZE | consoleFeature.EMERG_WRITE);
  });

  test("an emergency write is output, in order with the rest", () => {
    using con = setUpRunning();
    con.transmit.run([{ out: bytesOf("a") }]);
    con.device.writeConfig(8, Uint8Array.of(0x62, 0, 0, 0));
    con.transmit.run([{ out: bytesOf("c") }]);
    expect(text(con.end.takeOutput())).toBe("abc");
  });

  test("an emergency write before any queue runs waits, and is dropped when nothing takes output", () => {
    using con = setUp();
    for (let i = 0; i < MAX_CONSOLE_QUEUE_BYTES + 1; i++) con.device.writeConfig(8, Uint8Array.of(0x61));
    expect(con.end.takeOutput()).toHaveLength(0);
    expect(con.logger.lines).toHaveLength(1);
  });

  test("nothing else can be written", () => {
    using con = setUp();
    expect(() => con.device.writeConfig(0, Uint8Array.of(1))).toThrow(CompatibilityError);
    expect(() => con.device.writeConfig(8, new Uint8Array(0))).toThrow(CompatibilityError);
  });
});

describe("state", () => {
  test("nothing moves while the device is suspended", () => {
    using con = setUpRunning();
    con.end.limitTo(0);
    con.transmit.run([{ out: bytesOf("pending") }]);
    con.receive.stop();
    con.transmit.stop();
    con.end.limitTo(Infinity);
    con.end.send("input");
    expect(con.end.takeOutput()).toHaveLength(0);
    expect(con.end.unreadBytes).toBe(5);
    con.transmit.start();
    expect(text(con.end.takeOutput())).toBe("pending");
    con.receive.start();
    con.end.send("");
    expect(con.receive.run([{ room: 9 }]).writtenBytes).toBe(5);
  });

  test("bytes in flight in both directions go on in another device, none lost, none repeated", () => {
    using from = setUpRunning();
    using to = setUp();
    from.device.resize({ columns: 100, rows: 40 });
    from.end.limitTo(3);
    from.transmit.run([{ out: bytesOf("0123456789") }]);
    from.end.send("abcdef");
    const first = from.receive.run([{ room: 2 }]);
    expect(text(first.written)).toBe("ab");
    from.receive.stop();
    from.transmit.stop();
    const state = saveDevice(from.device);
    loadDevice(to.device, state);
    expect(Buffer.from(to.device.readConfig()).readUInt16LE(0)).toBe(100);
    from.receive.moveTo(to.device);
    from.transmit.moveTo(to.device);
    from.transmit.run([{ out: bytesOf("!") }]);
    expect(text(from.end.takeOutput()) + text(to.end.takeOutput())).toBe("0123456789!");
    const second = from.receive.run([{ room: 16 }]);
    expect(text(second.written.subarray(0, second.writtenBytes))).toBe("cdef");
    from.receive.stop();
    from.transmit.stop();
  });

  test("a restore replaces what was there; saved again it is the same", () => {
    using from = setUp();
    from.device.writeConfig(8, bytesOf("x"));
    const state = saveDevice(from.device);
    using to = setUp();
    to.device.writeConfig(8, bytesOf("y"));
    loadDevice(to.device, state);
    expect(Buffer.compare(saveDevice(to.device), state)).toBe(0);
  });

  test("nothing shows before commit, nor after an abort", () => {
    using con = setUp();
    const before = saveDevice(con.device);
    const header = { deviceType: "console", version: 1, oldestCompatibleVersion: 1, features: 0n };
    const restore = con.device.beginRestore(header);
    restore.value("state", { columns: 1, rows: 1, toGuest: bytesOf("a"), toHost: bytesOf("b") });
    expect(Buffer.compare(saveDevice(con.device), before)).toBe(0);
    restore.abort();
    expect(() => restore.commit()).toThrow(/aborted/);
    expect(Buffer.compare(saveDevice(con.device), before)).toBe(0);
  });

  // A version 1 state, which is upgraded and then checked as any other.
  const good = { columns: 1, rows: 1, toGuest: new Uint8Array(0), toHost: new Uint8Array(0) };
  const own = { deviceType: "console", version: 1, oldestCompatibleVersion: 1, features: 0n };
  test.each([
    ["another device's", { ...own, deviceType: "blk" }, good, CompatibilityError],
    [
      "an older version without a way here",
      { ...own, version: 0, oldestCompatibleVersion: 0 },
      good,
      CompatibilityError,
    ],
    [
      "too much input",
      own,
      { ...good, toGuest: new Uint8Array(MAX_CONSOLE_SAVED_INPUT_BYTES + 1) },
      FormatError,
    ],
    ["text for bytes", own, { ...good, toHost: "x" }, FormatError],
    ["a size that does not fit", own, { ...good, columns: 65536 }, FormatError],
  ])("%s is refused, and the device stays as it was", (_, header, value, kind) => {
    using con = setUp();
    con.device.writeConfig(8, bytesOf("x"));
    const before = saveDevice(con.device);
    let bytes: Uint8Array | undefined;
    try {
      bytes = Buffer.concat([...encodeState(header, [{ name: "state", value }])].map((c) => Buffer.from(c)));
    } catch {
      // The encoder refuses version 0 itself: then the device is asked directly.
    }
    expect(() => (bytes ? loadDevice(con.device, bytes) : con.device.beginRestore(header))).toThrow(
      kind as never,
    );
    expect(Buffer.compare(saveDevice(con.device), before)).toBe(0);
  });

  test("a reset drops input that no driver has asked for, and keeps what the guest wrote", () => {
    using con = setUpRunning();
    con.end.limitTo(0);
    con.transmit.run([{ out: bytesOf("kept") }]);
    con.end.send("dropped");
    con.receive.stop();
    con.transmit.stop();
    con.device.reset();
    con.end.limitTo(Infinity);
    con.transmit.start();
    con.receive.start();
    expect(text(con.end.takeOutput())).toBe("kept");
    con.receive.add([{ room: 8 }]);
    con.receive.kick();
    expect(con.receive.take()).toBeUndefined();
  });
});
