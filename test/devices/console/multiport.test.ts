import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  BufferEnd,
  ConsoleDevice,
  type ConsolePortOptions,
  consoleFeature,
  controlEvent,
  decodeControlMessage,
  encodeControlMessage,
} from "../../../devices/console/mod.ts";
import { CompatibilityError, FormatError, UsageError } from "../../../src/errors.ts";
import { MAX_CONSOLE_PORTS } from "../../../src/limits.ts";
import { decodeState, encodeState } from "../../../src/state/mod.ts";
import { RingError } from "../../../src/vring/mod.ts";
import { loadDevice, saveDevice } from "../../support/device-state.ts";
import { DrivenMemory, DrivenQueue } from "../../support/driven-queue.ts";
import { recordingLogger } from "../../support/recording-logger.ts";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytesOf = (string: string) => new TextEncoder().encode(string);
const { DEVICE_READY, DEVICE_ADD, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME } = controlEvent;
const ALL = consoleFeature.SIZE | consoleFeature.MULTIPORT | consoleFeature.EMERG_WRITE;
const SIZE = { columns: 80, rows: 25 };

function setUp(options: { features?: bigint; ports?: (ends: BufferEnd[]) => ConsolePortOptions[] } = {}) {
  const stack = new DisposableStack();
  const ends = [new BufferEnd(), new BufferEnd(), new BufferEnd()];
  const logger = recordingLogger();
  const ports = options.ports?.(ends) ?? [
    { end: ends[0]!, name: "tty", size: SIZE },
    { end: ends[1]!, name: "log" },
    { end: ends[2]! },
  ];
  const device = stack.use(new ConsoleDevice(ports, { logger }));
  device.ackFeatures(options.features ?? ALL);
  return { stack, ends, device, logger, [Symbol.dispose]: () => stack.dispose() };
}

function setUpRunning(...args: Parameters<typeof setUp>) {
  const base = setUp(...args);
  const driven = base.stack.use(new DrivenMemory());
  const newQueues = () =>
    Array.from({ length: base.device.maxQueues }, (_, index) =>
      base.stack.use(new DrivenQueue(driven, base.device, index)),
    );
  const queues = newQueues();
  /** Rings that begin at their start, as after a reset. */
  const renew = () => void queues.splice(0, queues.length, ...newQueues());
  const say = (port: number, event: number, value = 1) =>
    queues[3]!.run([{ out: encodeControlMessage({ port, event, value }) }]);
  /** Gives the device control buffers; what it says. */
  const hear = (count = 16) => {
    for (let i = queues[2]!.driver.outstanding; i < count; i++) queues[2]!.add([{ room: 64 }]);
    queues[2]!.kick();
    const heard: (string | number)[][] = [];
    for (let used = queues[2]!.take(); used !== undefined; used = queues[2]!.take()) {
      const { port, event, value } = decodeControlMessage(used.written);
      const tail = used.written.subarray(8, used.writtenBytes);
      heard.push([port, event, ...(tail.length > 0 ? [text(tail)] : [value])]);
    }
    return heard;
  };
  const begin = () => {
    say(0, DEVICE_READY);
    for (let port = 0; port < base.device.ports.length; port++) {
      say(port, PORT_READY);
      say(port, PORT_OPEN);
    }
    hear();
  };
  const stop = () => {
    for (const queue of queues) queue.stop();
  };
  return { ...base, queues, say, hear, begin, stop, renew };
}

const resized = (columns: number, rows: number) =>
  text(Uint8Array.of(rows & 0xff, rows >> 8, columns & 0xff, columns >> 8));

describe("control queues", () => {
  test("ports are added, then each is told of when the driver has taken it", () => {
    using con = setUpRunning();
    expect(con.hear()).toEqual([]);
    con.say(0, DEVICE_READY);
    expect(con.hear()).toEqual([
      [0, DEVICE_ADD, 1],
      [1, DEVICE_ADD, 1],
      [2, DEVICE_ADD, 1],
    ]);
    con.say(0, PORT_READY);
    expect(con.hear()).toEqual([
      [0, CONSOLE_PORT, 1],
      [0, PORT_NAME, "tty"],
      [0, RESIZE, resized(80, 25)],
      [0, PORT_OPEN, 1],
    ]);
    con.ends[1]!.setOpen(false);
    con.say(1, PORT_READY);
    expect(con.hear()).toEqual([[1, PORT_NAME, "log"]]);
    con.say(2, PORT_READY);
    expect(con.hear()).toEqual([[2, PORT_OPEN, 1]]);
    expect(Buffer.from(con.device.readConfig()).readUInt32LE(4)).toBe(3);
    expect(con.device.maxQueues).toBe(8);
  });

  test("what changes while the driver has no buffer is told once, as it is then", () => {
    using con = setUpRunning();
    con.begin();
    for (let used = con.queues[2]!.driver.outstanding; used > 0; used--) con.device.resize(SIZE);
    while (con.queues[2]!.take() !== undefined);
    for (const columns of [90, 100, 110]) con.device.resize({ columns, rows: 30 });
    for (const isOpen of [false, true, false]) con.ends[2]!.setOpen(isOpen);
    expect(con.hear()).toEqual([
      [0, RESIZE, resized(110, 30)],
      [2, PORT_OPEN, 0],
    ]);
  });

  test("a size is told of consoles only, and only with SIZE", () => {
    using con = setUpRunning({ features: consoleFeature.MULTIPORT });
    con.begin();
    con.device.resize({ columns: 1, rows: 1 });
    expect(con.hear()).toEqual([]);
    using other = setUpRunning();
    other.begin();
    other.device.resize({ columns: 1, rows: 1 }, 1);
    expect(other.hear()).toEqual([]);
    expect(() => other.device.resize(SIZE, 3)).toThrow(UsageError);
  });

  test("a process that was killed and left no state is replaced by one that goes on", () => {
    using from = setUpRunning();
    using to = setUp();
    from.begin();
    to.ends[1]!.setOpen(false);
    for (const queue of from.queues) queue.moveTo(to.device);
    expect(from.hear()).toEqual([
      [0, PORT_OPEN, 1],
      [1, PORT_OPEN, 0],
      [2, PORT_OPEN, 1],
    ]);
    to.ends[2]!.send("input");
    expect(from.queues[6]!.run([{ room: 8 }]).writtenBytes).toBe(5);
    from.stop();
  });

  test("nonsense is ignored, and logged once", () => {
    using con = setUpRunning();
    con.queues[3]!.run([{ out: bytesOf("short") }]);
    con.say(77, PORT_READY);
    con.say(0, 99);
    con.say(0, DEVICE_READY, 0);
    con.say(1, PORT_READY, 0);
    expect(con.hear()).toEqual([]);
    expect(con.logger.lines).toHaveLength(1);
  });

  test("a buffer without room for a message takes the queue out of service", () => {
    using con = setUpRunning();
    con.queues[2]!.add([{ room: 4 }]);
    expect(() => con.say(0, DEVICE_READY)).toThrow(RingError);
  });
});

describe("ports", () => {
  test("each has its own end, both ways", () => {
    using con = setUpRunning();
    con.begin();
    con.queues[1]!.run([{ out: bytesOf("zero") }]);
    con.queues[5]!.run([{ out: bytesOf("one") }]);
    con.queues[7]!.run([{ out: bytesOf("two") }]);
    expect(con.ends.map((end) => text(end.takeOutput()))).toEqual(["zero", "one", "two"]);
    for (const [id, end] of con.ends.entries()) end.send(`in ${id}`);
    const read = (index: number) => {
      const { written, writtenBytes } = con.queues[index]!.run([{ room: 16 }]);
      return text(written.subarray(0, writtenBytes));
    };
    expect([0, 4, 6].map(read)).toEqual(["in 0", "in 1", "in 2"]);
  });

  test("input waits with the host until somebody in the guest opens the port", () => {
    using con = setUpRunning();
    con.say(0, DEVICE_READY);
    con.queues[4]!.add([{ room: 16 }]);
    con.queues[4]!.kick();
    con.ends[1]!.send("waits");
    expect([con.queues[4]!.take(), con.ends[1]!.unreadBytes]).toEqual([undefined, 5]);
    con.say(1, PORT_OPEN);
    con.ends[1]!.send("");
    expect(con.queues[4]!.take()?.writtenBytes).toBe(5);
    con.say(1, PORT_OPEN, 0);
    con.ends[1]!.send("again");
    expect(con.ends[1]!.unreadBytes).toBe(5);
  });

  test("without MULTIPORT there is port 0, which is always open", () => {
    using con = setUpRunning({ features: consoleFeature.SIZE });
    con.ends[0]!.send("x");
    expect(con.queues[0]!.run([{ room: 4 }]).writtenBytes).toBe(1);
    con.queues[1]!.run([{ out: bytesOf("y") }]);
    expect(text(con.ends[0]!.takeOutput())).toBe("y");
  });

  test("an emergency write goes to port 0", () => {
    using con = setUpRunning();
    con.device.writeConfig(8, bytesOf("!"));
    expect(con.ends.map((end) => text(end.takeOutput()))).toEqual(["!", "", ""]);
  });

  test("after a reset the driver begins anew", () => {
    using con = setUpRunning();
    con.begin();
    con.stop();
    con.device.reset();
    con.renew();
    expect(con.hear()).toEqual([]);
    con.say(0, DEVICE_READY);
    expect(con.hear()).toHaveLength(3);
  });

  test.each([
    ["none", 0, (id: number) => `p${id}`],
    ["too many", MAX_CONSOLE_PORTS + 1, (id: number) => `p${id}`],
    ["the same name twice", 2, () => "p"],
    ["a long name", 1, () => "x".repeat(256)],
    ["a line break in a name", 1, () => "a\nb"],
  ])("%s is refused", (_, count, nameOf) => {
    const ports = Array.from({ length: count }, (_, id) => ({ end: new BufferEnd(), name: nameOf(id) }));
    expect(() => new ConsoleDevice(ports)).toThrow(UsageError);
  });
});

describe("state", () => {
  test("ports, what the driver was told, and bytes in flight go on in another device", () => {
    using from = setUpRunning();
    using to = setUp();
    from.begin();
    for (const end of from.ends) end.limitTo(2);
    from.queues[1]!.run([{ out: bytesOf("abcd") }]);
    from.queues[5]!.run([{ out: bytesOf("efgh") }]);
    from.say(2, PORT_OPEN, 0);
    from.ends[2]!.send("unread");
    from.device.resize({ columns: 132, rows: 50 });
    from.stop();
    // Nothing was heard since the resize: the driver is still to be told. The input of a closed port is taken along.
    while (from.queues[2]!.take() !== undefined);
    loadDevice(to.device, saveDevice(from.device));
    expect(Buffer.compare(saveDevice(to.device), saveDevice(from.device))).toBe(0);
    to.ends[1]!.setOpen(false);
    for (const queue of from.queues) queue.moveTo(to.device);
    expect(from.hear()).toContainEqual([1, PORT_OPEN, 0]);
    expect(from.ends.map((end, id) => text(end.takeOutput()) + text(to.ends[id]!.takeOutput()))).toEqual([
      "abcd",
      "efgh",
      "",
    ]);
    from.queues[6]!.add([{ room: 16 }]);
    from.queues[6]!.kick();
    expect(from.queues[6]!.take()).toBeUndefined();
    from.say(2, PORT_OPEN, 1);
    expect(from.queues[6]!.take()?.writtenBytes).toBe(6);
    from.stop();
  });

  test("other ports than those that the driver knows are refused; a driver that knows none takes any", () => {
    const others = (ends: BufferEnd[]) => [
      { end: ends[0]!, name: "tty" },
      { end: ends[1]!, name: "other" },
      { end: ends[2]! },
    ];
    using from = setUpRunning();
    using to = setUp({ ports: others });
    using fewer = setUp({ ports: (ends) => others(ends).slice(0, 2) });
    const fresh = saveDevice(from.device);
    loadDevice(to.device, fresh);
    expect(() => loadDevice(fewer.device, fresh)).toThrow(CompatibilityError);
    from.begin();
    from.stop();
    const before = saveDevice(to.device);
    expect(() => loadDevice(to.device, saveDevice(from.device))).toThrow(/"other"/);
    expect(Buffer.compare(saveDevice(to.device), before)).toBe(0);
  });

  test("a state of version 1 loads for ever, with its bytes in flight", () => {
    const fixture = readFileSync(join(import.meta.dirname, "../../fixtures/console-state-v1.bin"));
    expect(decodeState(fixture).header.version).toBe(1);
    const end = new BufferEnd();
    using device = new ConsoleDevice(end);
    loadDevice(device, fixture);
    const { header, sections } = decodeState(saveDevice(device));
    expect([header.version, device.ports[0]!.size]).toEqual([2, { columns: 132, rows: 43 }]);
    expect(sections.get("state")).toMatchObject({ isDriverReady: false, ports: [{ name: "" }] });
    using driven = new DrivenMemory();
    using receive = new DrivenQueue(driven, device, 0);
    using _transmit = new DrivenQueue(driven, device, 1);
    const { written, writtenBytes } = receive.run([{ room: 16 }]);
    expect([text(written.subarray(0, writtenBytes)), text(end.takeOutput())]).toEqual(["cdef", "456789"]);
  });

  const own = { deviceType: "console", oldestCompatibleVersion: 1, features: 0n };
  const port = (fields: object) => ({ isDriverReady: false, ports: [fields] });
  const v1 = { columns: 1, rows: 1, toGuest: new Uint8Array(0), toHost: new Uint8Array(0) };
  test.each([
    ["a version 1 state that is no object", 1, 7],
    ["a version 1 state with a field too many", 1, { ...v1, more: 1 }],
    ["a version 1 state without its output", 1, { columns: 1, rows: 1, toGuest: v1.toGuest }],
    ["ports that are no list", 2, { isDriverReady: false, ports: 1 }],
    ["a port that is no object", 2, { isDriverReady: false, ports: [1] }],
    ["too many ports", 2, { isDriverReady: false, ports: new Array(MAX_CONSOLE_PORTS + 1).fill({}) }],
    ["a port without a name", 2, port({ isConsole: true })],
  ])("%s is refused, and the device stays as it was", (_, version, value) => {
    using con = setUp();
    const before = saveDevice(con.device);
    const chunks = encodeState({ ...own, version }, [{ name: "state", value }]);
    const bytes = Buffer.concat([...chunks].map((chunk) => Buffer.from(chunk)));
    expect(() => loadDevice(con.device, bytes)).toThrow(FormatError);
    expect(Buffer.compare(saveDevice(con.device), before)).toBe(0);
  });
});
