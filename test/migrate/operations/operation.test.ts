import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import {
  assessOperation,
  cancelOperation,
  currentOperation,
  Operation,
  type OperationRecord,
  OperationsLog,
} from "../../../migrate/mod.ts";
import type { OperationEntry } from "../../../migrate/operations/entry.ts";
import { entryLine, parseEntries } from "../../../migrate/operations/entry-lines.ts";
import { placeOf } from "../../../migrate/operations/operation-place.ts";
import { FormatError, StateError, SyscallError, UsageError } from "../../../src/errors.ts";
import { MAX_ENDED_OPERATIONS, MAX_OPERATION_LOG_BYTES } from "../../../src/limits.ts";

let folder: string;
let log: OperationsLog;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vhu-operations-"));
  log = new OperationsLog(join(folder, "operations"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const start = { kind: "save", source: "machine:/run/m.sock", target: "/m.vhu" } as const;

/** An operation that was left without an end, as by a kill. */
function interrupted(): OperationRecord {
  using operation = Operation.begin(log, start);
  operation.phase("saving", { earlierRunState: "running", sockets: ["/a"] });
  operation.phase("resuming", { root: "ab", sockets: ["/b"] });
  return operation.record;
}

describe("one operation", () => {
  test("what was told is read again; lists grow, of the others the newest counts", () => {
    using operation = Operation.begin(log, { ...start, facts: { machine: "m" } });
    operation.phase("saving", { earlierRunState: "running", sockets: ["/a"] });
    operation.started("the machine", process.pid);
    operation.phase("resuming", { sockets: ["/b"], machine: "n" });
    const record = log.read(operation.id);
    expect(record).toEqual(operation.record);
    expect(record).toMatchObject({ ...start, phase: "resuming", owner: { pid: process.pid } });
    expect(record.facts).toMatchObject({ machine: "n", earlierRunState: "running", sockets: ["/a", "/b"] });
    expect(record.facts.started).toMatchObject([{ role: "the machine", pid: process.pid }]);
    expect(record.phases.map(({ phase }) => phase)).toEqual(["saving", "saving", "resuming"]);
    expect(currentOperation(log, record).state).toBe("running");
    operation.end({ result: "done", message: "all of it" });
    expect(currentOperation(log, log.read(operation.id)).state).toBe("finished");
    expect(log.find("save-").id).toBe(operation.id);
  });

  test("the file is there, 0600, before begin returns, and nothing else", () => {
    using operation = Operation.begin(log, start);
    expect(readdirSync(log.folder)).toEqual([`${operation.id}.log`]);
    const { mode } = statSync(log.pathOf(operation.id));
    expect(mode & 0o777).toBe(0o600);
  });

  test("progress is there while it runs, and gone afterwards", () => {
    using operation = Operation.begin(log, start);
    operation.progress({ phase: "memory", done: 1, total: 4 });
    expect(log.progressOf(operation.id)).toEqual({ phase: "memory", done: 1, total: 4 });
    writeFileSync(log.progressPathOf(operation.id), '{"phase":"mem');
    expect(log.progressOf(operation.id)).toBeUndefined();
    operation.end({ result: "done", message: "" });
    expect(existsSync(log.progressPathOf(operation.id))).toBe(false);
  });

  test("a log that cannot be written is an error before anything happens", () => {
    writeFileSync(join(folder, "file"), "");
    expect(() => Operation.begin(new OperationsLog(join(folder, "file", "x")), start)).toThrow(SyscallError);
  });
});

describe("an operation that broke off", () => {
  test("one recovery at a time takes it up; the log then has its end", () => {
    const { id } = interrupted();
    using first = Operation.takeUp(log, id);
    expect(() => Operation.takeUp(log, id)).toThrow(StateError);
    first.end({ result: "recovered", message: "nothing is left" });
    expect(log.read(id).outcome).toEqual({ result: "recovered", message: "nothing is left" });
  });

  test("from another container nothing is concluded about its machine; after a boot it has ended", async () => {
    const record = { ...interrupted(), kind: "receive", target: "machine:/b" } as const;
    const facts = { handover: { state: "owner" }, started: [{ role: "m", pid: 4_000_000, startTicks: "1" }] };
    const at = (host: Partial<OperationRecord["host"]>) =>
      assessOperation({ ...record, facts, host: { ...record.host, ...host } }, async () => "gone");
    await expect(at({ pidNamespace: "pid:[1]" })).rejects.toThrow("is of another container");
    expect((await at({ bootId: "earlier", pidNamespace: "pid:[1]" })).line).toStartWith("owner");
    expect((await at({})).line).toStartWith("owner");
  });

  test("hosts may share a home: nothing is concluded about another host's, nor is it ended", async () => {
    const record = interrupted();
    const text = readFileSync(log.pathOf(record.id), "utf8");
    const moved = (host: Partial<OperationRecord["host"]>) => {
      const other = { ...record, host: { ...record.host, ...host } };
      const [begin] = parseEntries(text);
      const lines = [{ ...begin!, host: other.host }, ...parseEntries(text).slice(1)];
      writeFileSync(log.pathOf(record.id), lines.map((entry) => entryLine(entry as OperationEntry)).join(""));
      return log.read(record.id);
    };
    const [there, here] = ["a".repeat(32), "b".repeat(32)];
    const own = { ...record.host, bootId: "now", machineId: here, hostName: "b" };
    const judged: [Partial<OperationRecord["host"]>, string][] = [
      [{ bootId: "now" }, "here"],
      [{ bootId: "before", machineId: here, hostName: "renamed" }, "an earlier boot"],
      [{ bootId: "before", machineId: there, hostName: "b" }, "another host"],
      [{ bootId: "before", machineId: undefined, hostName: "a" }, "another host"],
      [{ bootId: "before", machineId: undefined, hostName: undefined }, "an earlier boot"],
    ];
    for (const [host, place] of judged) expect(placeOf({ ...own, ...host }, own)).toBe(place as never);
    const foreign = moved({ bootId: "before", machineId: there, hostName: "a" });
    expect(currentOperation(log, foreign).state).toBe("elsewhere");
    await expect(assessOperation(foreign, async () => "gone")).rejects.toThrow("is of the host a");
    await expect(cancelOperation(log, foreign, { timeoutMs: 1 })).rejects.toThrow("is of the host a");
    expect(currentOperation(log, moved({ bootId: "before" })).state).toBe("interrupted");
  });

  test("a running one is not taken up", () => {
    using operation = Operation.begin(log, start);
    expect(() => Operation.takeUp(log, operation.id)).toThrow("under way");
  });

  test("cut anywhere, its log tells a moment of it, and recovery can go on writing", () => {
    const { id } = interrupted();
    const whole = readFileSync(log.pathOf(id));
    const phases = ["begun", "saving", "resuming"];
    let earlier = -1;
    for (let length = 0; length <= whole.length; length += 1) {
      writeFileSync(log.pathOf(id), whole.subarray(0, length));
      if (length <= whole.indexOf("\n") - 1) {
        expect(() => log.read(id)).toThrow(FormatError);
        continue;
      }
      const at = phases.indexOf(log.read(id).phase);
      expect(at).toBeGreaterThanOrEqual(earlier);
      earlier = at;
      if (length % 37 !== 0) continue;
      using again = Operation.takeUp(log, id);
      again.end({ result: "recovered", message: "" });
      expect(log.read(id)).toEqual(again.record);
    }
  });

  test("whatever the bytes, reading gives a record or a FormatError", () => {
    const { id } = interrupted();
    const whole = readFileSync(log.pathOf(id));
    const changes = fc.array(
      fc.record({ at: fc.nat(whole.length - 1), bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }) }),
      { minLength: 1, maxLength: 4 },
    );
    fc.assert(
      fc.property(changes, (list) => {
        const bytes = Buffer.from(whole);
        for (const change of list) bytes.set(change.bytes.subarray(0, bytes.length - change.at), change.at);
        writeFileSync(log.pathOf(id), bytes);
        try {
          expect(["begun", "saving", "resuming"]).toContain(log.read(id).phase);
        } catch (error) {
          if (!(error instanceof FormatError)) throw error;
        }
      }),
      { numRuns: 300, seed: 20261125 },
    );
  });
});

describe("the log", () => {
  test("is not believed where another user could have written it", () => {
    const { id } = interrupted();
    const refused = (message: string) => {
      for (const act of [() => log.list(), () => log.find(id), () => log.read(id)]) {
        expect(act).toThrow(StateError);
        expect(act).toThrow(message);
      }
    };
    chmodSync(log.folder, 0o770);
    refused("others can write it (mode 770)");
    expect(() => Operation.begin(log, start)).toThrow("others can write it");
    chmodSync(log.folder, 0o755);
    chmodSync(log.pathOf(id), 0o602);
    refused("others can write it (mode 602)");
    chmodSync(log.pathOf(id), 0o600);
    expect(log.read(id).id).toBe(id);
    using _operation = Operation.begin(log, start);
    expect(statSync(log.folder).mode & 0o777).toBe(0o700);
    if (process.geteuid?.() !== 0) return;
    chownSync(log.folder, 12_345, 0);
    refused("belongs to user 12345");
    chownSync(log.folder, 0, 0);
  });

  test("ids by their first letters; none, or more than one, is said", () => {
    const first = interrupted();
    const second = interrupted();
    expect(log.find(first.id.slice(0, 12)).id).toBe(first.id);
    expect(() => log.find("save-")).toThrow("give more of it");
    expect(() => log.find("load-00000000")).toThrow(UsageError);
    expect(() => log.find("")).toThrow(UsageError);
    expect(() => log.find("../../etc/passwd")).toThrow(UsageError);
    expect(log.list().map(({ id }) => id)).toContain(second.id);
  });

  test("what is no log, is damaged or is too large is left out of the list", () => {
    const { id } = interrupted();
    writeFileSync(join(log.folder, "notes.txt"), "x");
    writeFileSync(join(log.folder, "save-00000000.log"), "damaged\n");
    writeFileSync(join(log.folder, "save-00000001.log"), "");
    appendFileSync(join(log.folder, "save-00000001.log"), Buffer.alloc(MAX_OPERATION_LOG_BYTES + 1));
    expect(log.list().map((record) => record.id)).toEqual([id]);
    expect(() => log.read("save-00000000")).toThrow("first entry is missing");
    expect(() => log.read("save-00000001")).toThrow("larger");
  });

  test("what a kill in the middle of begin has left goes away in time", () => {
    interrupted();
    const [old, young] = [
      join(log.folder, "save-00000002.log.tmp"),
      join(log.folder, "save-00000003.log.tmp"),
    ];
    for (const path of [old, young]) writeFileSync(path, "");
    utimesSync(old, 1, 1);
    interrupted();
    expect([existsSync(old), existsSync(young)]).toEqual([false, true]);
  });

  test("the oldest that have ended are forgotten, never one that has not", () => {
    const { id } = interrupted();
    const line = readFileSync(log.pathOf(id), "utf8");
    for (let index = 0; index < MAX_ENDED_OPERATIONS + 5; index += 1) {
      using operation = Operation.begin(log, start);
      operation.end({ result: "done", message: "" });
    }
    using _next = Operation.begin(log, start);
    const left = log.list();
    expect(left.filter(({ outcome }) => outcome !== undefined).length).toBe(MAX_ENDED_OPERATIONS);
    expect(left.map((record) => record.id)).toContain(id);
    expect(readFileSync(log.pathOf(id), "utf8")).toBe(line);
  });
});
