import { expect, test } from "bun:test";
import { z } from "zod";
import { QmpClient } from "../../../migrate/qemu/qmp-client.ts";
import { QmpError } from "../../../migrate/qemu/qmp-error.ts";
import { QmpLines } from "../../../migrate/qemu/qmp-lines.ts";
import { FormatError, type PeerError } from "../../../src/errors.ts";
import { MAX_QMP_MESSAGE_BYTES } from "../../../src/limits.ts";
import { createEventFd, signalEvent } from "../../../src/sys/mod.ts";
import { GREETING, ScriptedMonitor } from "./scripted-monitor.ts";

const SHORT_MS = 50;
const answer = z.object({ value: z.number() });

async function connected(monitor: ScriptedMonitor): Promise<QmpClient> {
  const connecting = QmpClient.connect(monitor.path);
  monitor.accept();
  monitor.say(GREETING);
  await Bun.sleep(1);
  const { id, ...request } = await heard(monitor);
  expect(request).toEqual({ execute: "qmp_capabilities", arguments: { enable: ["oob"] } });
  monitor.say(`{"return": {}, "id": "${id}"}\r\n`);
  return connecting;
}

/** The client sends when the event loop turns. */
async function heard(monitor: ScriptedMonitor) {
  await Bun.sleep(30);
  return monitor.hear();
}

test("a monitor that does not greet is held by another client", async () => {
  using monitor = new ScriptedMonitor();
  const connecting = QmpClient.connect(monitor.path, { greetingTimeoutMs: SHORT_MS });
  monitor.accept();
  expect(connecting).rejects.toThrow(/another client holds this monitor/);
  await connecting.catch(() => {});
});

test("greeting, negotiation, version; answers in any order go to their requests", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  expect(client.version).toEqual({ text: "10.0.2", package: "p" });
  expect(client.peerPid).toBe(process.pid);
  const first = client.request("one", { answer, arguments: { a: 1 } });
  const second = client.request("two", { answer, outOfBand: true });
  const [one, two] = [await heard(monitor), monitor.hear()];
  expect(one).toMatchObject({ execute: "one", arguments: { a: 1 } });
  expect(two).toMatchObject({ "exec-oob": "two" });
  monitor.say(`{"return": {"value": 2}, "id": "${two.id}"}\n{"return": {"value": 1}, "id": "${one.id}"}\n`);
  expect(await Promise.all([first, second])).toEqual([{ value: 1 }, { value: 2 }]);
});

test("events are kept for whoever waits for them", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const stamp = '"timestamp": {"seconds": 1, "microseconds": 2}';
  monitor.say(
    `{"event": "STOP", ${stamp}}\n{"event": "MIGRATION", "data": {"status": "active"}, ${stamp}}\n`,
  );
  const event = await client.waitForEvent(
    "MIGRATION",
    20_000,
    (data) => (data as { status: string }).status === "active",
  );
  expect(event).toEqual({ name: "MIGRATION", data: { status: "active" }, atMs: 1000.002 });
  monitor.say(`{"event": "RESUME", ${stamp}}\n`);
  expect(client.takeEvents()).toEqual([{ name: "RESUME", data: undefined, atMs: 1000.002 }]);
  expect(client.waitForEvent("STOP", SHORT_MS)).rejects.toThrow(/no event STOP/);
  await Bun.sleep(2 * SHORT_MS);
});

test("an fd rides on its command", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  using event = createEventFd("a test");
  const given = client.request("getfd", { answer: z.object({}), fd: event, arguments: { fdname: "x" } });
  const { id } = await heard(monitor);
  expect(monitor.fds).toHaveLength(1);
  signalEvent(monitor.fds[0]!);
  monitor.say(`{"return": {}, "id": "${id}"}\n`);
  await given;
});

test("a refusal is typed", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const refused = client.request("frob", { answer });
  const { id } = await heard(monitor);
  monitor.say(`{"error": {"class": "CommandNotFound", "desc": "no frob"}, "id": "${id}"}\n`);
  const error = await refused.then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(QmpError);
  expect(error).toMatchObject({ command: "frob", errorClass: "CommandNotFound", exitStatus: 5 });
});

test("an answer that is late is dropped, and the next request gets its own", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const late = client.request("slow", { answer, timeoutMs: SHORT_MS });
  const { id } = monitor.hear();
  expect(late).rejects.toThrow(/did not answer slow within 50 ms/);
  await late.catch(() => {});
  monitor.say(`{"return": {"value": 0}, "id": "${id}"}\n`);
  const next = client.request("next", { answer });
  monitor.say(`{"return": {"value": 7}, "id": "${(await heard(monitor)).id}"}\n`);
  expect(await next).toEqual({ value: 7 });
});

const malformed: readonly [string, string, typeof FormatError | typeof PeerError][] = [
  ["no JSON", "hello\n", FormatError],
  ["JSON that is no message", '{"nothing": 1}\n', FormatError],
  ["an array", "[1]\n", FormatError],
  ["an answer of another form", '{"return": {"value": "text"}, "id": "ID"}\n', FormatError],
  ["an answer whose id is a number", '{"return": {"value": 1}, "id": 3}\n', FormatError],
  ["a refusal of no request", '{"error": {"class": "GenericError", "desc": "bad JSON"}}\n', FormatError],
  ["bytes that are no UTF-8", "\xff\n", FormatError],
];

test.each(malformed)("the peer sends %s", async (_, text, kind) => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const asked = client.request("what", { answer });
  const { id } = await heard(monitor);
  monitor.say(text.replace("ID", id));
  expect(await asked.catch((error) => error)).toBeInstanceOf(kind);
});

test("a peer that hangs up, before the greeting and during a request", async () => {
  using monitor = new ScriptedMonitor();
  const early = QmpClient.connect(monitor.path);
  monitor.accept();
  monitor.hangUp();
  expect(await early.catch((error) => error)).toMatchObject({ reconnect: true });
  using client = await connected(monitor);
  const asked = client.request("what", { answer });
  monitor.hear();
  monitor.hangUp();
  expect(await asked.catch((error) => error)).toMatchObject({ reconnect: true });
});

test("a greeting that is none", async () => {
  using monitor = new ScriptedMonitor();
  const connecting = QmpClient.connect(monitor.path);
  monitor.accept();
  monitor.say('{"QMP": {"version": {}}}\n');
  expect(await connecting.catch((error) => error)).toBeInstanceOf(FormatError);
});

test("a wait can be cancelled", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const controller = new AbortController();
  const asked = client.request("what", { answer, signal: controller.signal });
  controller.abort(new Error("enough"));
  expect(await asked.catch((error) => error)).toMatchObject({ message: "enough" });
});

test("messages may be cut anywhere, but not grow without end", () => {
  const bytes = new TextEncoder().encode('{"a": "ü"}\r\n\n{"b": [1, 2]}\n{"c"');
  const lines = new QmpLines();
  const messages = [...bytes].flatMap((byte) => lines.push(Uint8Array.of(byte)));
  expect(messages).toEqual([{ a: "ü" }, { b: [1, 2] }]);
  const endless = new QmpLines();
  const piece = new Uint8Array(1 << 20).fill(0x20);
  expect(() => {
    for (let sent = 0; sent <= MAX_QMP_MESSAGE_BYTES; sent += piece.length) endless.push(piece);
  }).toThrow(/longer than/);
});
