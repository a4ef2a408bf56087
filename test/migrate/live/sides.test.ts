import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DestinationSide } from "../../../migrate/live/destination-side.ts";
import type { LiveMessage } from "../../../migrate/live/messages.ts";
import type { Session } from "../../../migrate/live/session.ts";
import { SourceSide } from "../../../migrate/live/source-side.ts";
import { Operation, OperationsLog, type VmDriver } from "../../../migrate/mod.ts";
import { PeerError } from "../../../src/errors.ts";
import { identityOf } from "../../../src/sys/mod.ts";

let folder: string;
let log: OperationsLog;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vhu-sides-"));
  log = new OperationsLog(folder);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A machine whose process is killed when it is asked for something, and one that only does not answer. */
function machine(dies: boolean) {
  const child = Bun.spawn(["sleep", "1000"], { stdio: ["ignore", "ignore", "ignore"] });
  const called: string[] = [];
  const fail = async () => {
    if (dies) child.kill("SIGKILL");
    throw new PeerError("it does not answer");
  };
  const note = (name: string) => async () => void called.push(name);
  const driver = {
    release: fail,
    resume: fail,
    reclaim: note("reclaim"),
    discard: note("discard"),
  } as unknown as VmDriver;
  return { child, called, driver, process: identityOf(child.pid)! };
}

function session() {
  const said: string[] = [];
  const fake = { failure: undefined, say: async ({ kind }: LiveMessage) => void said.push(kind) };
  return { said, session: fake as unknown as Session };
}

const loaded: LiveMessage = { kind: "loaded", loadMs: 0, memoryBytes: 0 };

test("a source's machine that dies while it is given up is the destination's; one that only does not answer is kept", async () => {
  for (const dies of [true, false]) {
    const vm = machine(dies);
    using operation = Operation.begin(log, {
      ...{ kind: "send", source: "machine:/a", target: "tcp:b:1" },
      facts: { vmProcess: vm.process },
    });
    const other = session();
    const side = new SourceSide(vm.driver, other.session, operation, () => {});
    await side.give({ type: "sent" });
    await side.hear(loaded);
    expect(other.said).toEqual([dies ? "released" : "aborted"]);
    expect(vm.called).toEqual(dies ? [] : ["reclaim"]);
    expect(log.read(operation.id).facts.handover).toEqual({ state: dies ? "released" : "kept" });
    vm.child.kill();
  }
});

test("a source's machine that could not be let go on stays open in the log, for recovery", async () => {
  const vm = machine(false);
  using operation = Operation.begin(log, {
    ...{ kind: "send", source: "machine:/a", target: "tcp:b:1" },
    facts: { vmProcess: vm.process },
  });
  const lines: string[] = [];
  const side = new SourceSide(vm.driver, session().session, operation, (line) => lines.push(line));
  await side.give({ type: "give-up", reason: "cancelled" });
  expect(lines[0]).toContain(`vhu migrate recover ${operation.id}`);
  expect(log.read(operation.id)).toMatchObject({ phase: "kept" });
  expect(log.read(operation.id).outcome).toBeUndefined();
  vm.child.kill();
});

test("a destination's machine that has died before it was taken is dropped, so that the source takes it back", async () => {
  const vm = machine(true);
  using operation = Operation.begin(log, { kind: "receive", source: "m of a", target: "machine:/b" });
  operation.started("machine", vm.child.pid);
  const other = session();
  const side = new DestinationSide(other.session, operation, () => {});
  side.driver = vm.driver;
  await side.give({ type: "loaded" });
  vm.child.kill("SIGKILL");
  await vm.child.exited;
  await side.hear({ kind: "released" });
  expect(other.said.slice(0, 2)).toEqual(["loaded", "abandoned"]);
  expect(log.read(operation.id).facts.handover).toEqual({ state: "abandoned" });
});

test("a machine that dies while it is let run is lost; one that does not answer stays the destination's", async () => {
  for (const dies of [true, false]) {
    const vm = machine(dies);
    using operation = Operation.begin(log, { kind: "receive", source: "m of a", target: "machine:/b" });
    operation.started("machine", vm.child.pid);
    const [other, lines]: [ReturnType<typeof session>, string[]] = [session(), []];
    const side = new DestinationSide(other.session, operation, (line) => lines.push(line));
    side.driver = vm.driver;
    await side.give({ type: "loaded" });
    const heard = side.hear({ kind: "released" });
    if (dies) await heard;
    else await expect(heard).rejects.toThrow(`vhu migrate recover ${operation.id}`);
    expect(other.said).toEqual(dies ? ["loaded", "lost"] : ["loaded"]);
    expect(log.read(operation.id).facts.handover).toEqual({ state: dies ? "lost" : "owner" });
    if (!dies) expect(lines[0]).toContain("recover tries again");
    vm.child.kill();
  }
});

test("a machine that was dropped and does not end is said: it may still hold its disks", async () => {
  for (const dies of [true, false]) {
    const vm = machine(dies);
    using operation = Operation.begin(log, { kind: "receive", source: "m of a", target: "machine:/b" });
    operation.started("machine", vm.child.pid);
    const lines: string[] = [];
    const side = new DestinationSide(session().session, operation, (line) => lines.push(line));
    const driver = { ...vm.driver, discard: vm.driver.resume };
    side.driver = driver as VmDriver;
    await side.give({ type: "load-failed", reason: "no room" });
    expect(lines).toEqual(
      dies ? [] : ["what had arrived of the machine could not be ended here: it does not answer"],
    );
    vm.child.kill();
  }
});
