import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type SendOptions, sendMachine } from "../../../migrate/live/mod.ts";
import type { Session } from "../../../migrate/live/session.ts";
import {
  MachineProcess,
  Operation,
  OperationsLog,
  type VmDriver,
  type VmSink,
} from "../../../migrate/mod.ts";
import { CancelledError, PeerError, StateError } from "../../../src/errors.ts";
import { vhu } from "../../support/machine-fixture.ts";
import { HostileRig, MACHINE, QUICK, REGION } from "./hostile-rig.ts";
import { LiveRig, LOCAL } from "./live-pair.ts";

let folder: string;
let log: OperationsLog;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "vhu-patience-"));
  log = new OperationsLog(join(folder, "operations"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const REGION_BYTES = 32 << 20;

/** A machine that notes what is done with it; it sends more than fits under way. */
function fakeDriver(called: string[]): VmDriver {
  const note = (name: string) => async () => void called.push(name);
  const manifest = { machine: MACHINE, devices: [], memory: { totalBytes: REGION_BYTES } };
  return {
    describe: async () => ({
      ...{ name: "m", runState: "running", memoryBytes: REGION_BYTES, devices: [], machine: MACHINE },
    }),
    preflight: async () => [],
    startPrecopy: async (sink: VmSink) => {
      sink.writeMemoryMap([{ ...REGION, sizeBytes: REGION_BYTES }]);
      const piece = crypto.getRandomValues(new Uint8Array(1 << 16));
      for (let at = 0; at < REGION_BYTES; at += piece.length) {
        piece[0] = at >> 16;
        await sink.writeMemory(0, at, piece);
      }
      sink.writeManifest(manifest);
      return manifest;
    },
    ...{
      release: note("release"),
      resume: note("resume"),
      reclaim: note("reclaim"),
      discard: note("discard"),
    },
    [Symbol.dispose]: () => {},
  } as unknown as VmDriver;
}

type Script = (session: Session) => Promise<void>;
const never = () => new Promise<void>(() => {});
const upTo = {
  checked: async () => {},
  prepared: async (session: Session) => {
    await session.expect("offer");
    await session.say({ kind: "checked", host: "b", checks: [], ok: true });
  },
  data: async (session: Session) => {
    await upTo.prepared(session);
    session.onData = never;
    await session.expect("prepare");
    await session.say({ kind: "prepared" });
  },
  loaded: async (session: Session) => {
    await upTo.prepared(session);
    session.onData = () => undefined;
    await session.expect("prepare");
    await session.say({ kind: "prepared" });
    await session.expect("manifest");
    await session.expect("end");
  },
  running: async (session: Session) => {
    await upTo.loaded(session);
    await session.say({ kind: "loaded", loadMs: 1, memoryBytes: 1 });
    await session.expect("released");
  },
} satisfies Record<string, Script>;

/** A send to a receiver that goes on to a point, and says nothing more. */
async function sendTo(script: Script, change: Partial<SendOptions> = {}) {
  using rig = await LiveRig.start({ security: { kind: "insecure" } });
  rig.onSession = (session) => void script(session).catch(() => {});
  using operation = Operation.begin(log, { kind: "send", source: "machine:/m", target: "tcp:b:1" });
  const [called, lines]: string[][] = [[], []];
  const error = await sendMachine(fakeDriver(called!), {
    ...{ address: { host: LOCAL, port: rig.port }, security: { kind: "insecure" }, version: "test" },
    ...{ streams: 2, retryMs: 0, compress: "none", patience: QUICK, operation },
    onLine: (line) => lines!.push(line),
    ...change,
  }).then(
    () => undefined,
    (cause: Error) => cause,
  );
  return { error, called, lines: lines!, record: log.read(operation.id) };
}

test.each(["checked", "prepared", "data", "loaded"] as const)(
  "a receiver that is there and does not get on with %s is given up: the machine goes on here",
  async (step) => {
    const { error, called, record } = await sendTo(upTo[step]);
    expect(error).toBeInstanceOf(PeerError);
    expect(error!.message).toContain("does not get on");
    expect(called).toEqual(step === "checked" ? [] : ["resume"]);
    expect(record.outcome).toMatchObject({ result: "failed" });
  },
);

test.each(["checked", "prepared", "data", "loaded"] as const)(
  "Ctrl-C is heard while %s is waited for, and the machine goes on here",
  async (step) => {
    const cancel = new AbortController();
    const script: Script = async (session) => {
      await upTo[step](session);
      if (step === "prepared") await session.expect("prepare");
      cancel.abort(new CancelledError("Ctrl-C"));
    };
    const patience = { ...QUICK, stepMs: 60_000, stallMs: 60_000 };
    const { error, called, record } = await sendTo(script, { signal: cancel.signal, patience });
    expect(error).toBeInstanceOf(CancelledError);
    expect(called).toEqual(step === "checked" ? [] : ["resume"]);
    expect(record.outcome).toMatchObject({ result: "cancelled" });
  },
);

test.each([false, true])(
  "who has got the machine and never says that it runs is not waited for: the last line says whose it is (Ctrl-C: %p)",
  async (isCancelled) => {
    const cancel = new AbortController();
    const script: Script = async (session) => {
      await upTo.running(session);
      if (isCancelled) cancel.abort(new CancelledError("Ctrl-C"));
    };
    const patience = { ...QUICK, ...(isCancelled ? { handOverMs: 60_000 } : {}) };
    const { error, called, lines, record } = await sendTo(script, { signal: cancel.signal, patience });
    expect(error).toBeInstanceOf(StateError);
    expect(error!.message).toContain("was given up here and the other side has it");
    expect(lines[0]).toContain("the machine is not the source's any more");
    expect(called).toEqual(["release"]);
    expect([record.phase, record.outcome]).toEqual(["released", undefined]);
  },
);

test.each([false, true])(
  "a sender that never gives the machine up leaves it loaded at the receiver, which says so (Ctrl-C: %p)",
  async (isCancelled) => {
    await using hostile = await HostileRig.start();
    if (isCancelled) hostile.patience = { ...QUICK, handOverMs: 60_000 };
    const socket = join(folder, "m.sock");
    writeFileSync(join(folder, "m.toml"), `name = "m"\nsocket = "${socket}"\n[memory]\nsize-mib = 1\n`);
    using machine = MachineProcess.start(vhu, [join(folder, "m.toml")], socket);
    using real = await machine.connect();
    const driver = new Proxy(real, {
      get: (target, name) => {
        if (name === "release") {
          return () => {
            if (isCancelled) hostile.cancel.abort(new CancelledError("Ctrl-C"));
            return never();
          };
        }
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    using operation = Operation.begin(log, { kind: "send", source: "machine:/m", target: "tcp:b:1" });
    void sendMachine(driver, {
      ...{ address: { host: LOCAL, port: hostile.rig.port }, security: { kind: "insecure" }, version: "t" },
      ...{ streams: 2, retryMs: 0, compress: "none", operation, onLine: () => {} },
    }).catch(() => {});
    while (hostile.outcomes.length === 0) await Bun.sleep(5);
    const failure = await hostile.failure();
    expect(failure.message).toContain("it waits here, loaded; see vhu migrate status on both sides");
    expect(hostile.rig.logger.lines.at(-1)).toContain(
      "all of the machine is here, and the source has not said",
    );
    expect(hostile.log.list().map(({ phase, outcome }) => [phase, outcome])).toEqual([["loaded", undefined]]);
  },
  30_000,
);
