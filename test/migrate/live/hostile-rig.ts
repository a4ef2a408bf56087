import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArrivalRoom } from "../../../migrate/live/arrival-room.ts";
import { hostFacts } from "../../../migrate/live/host-facts.ts";
import type { LiveMessage, Offer } from "../../../migrate/live/messages.ts";
import type { Patience } from "../../../migrate/live/patience.ts";
import { type ReceiveReport, receiveMachine } from "../../../migrate/live/receive.ts";
import type { Session } from "../../../migrate/live/session.ts";
import { OPERATION_VARIABLE, OperationsLog } from "../../../migrate/mod.ts";
import { CancelledError } from "../../../src/errors.ts";
import { processesWithVariable } from "../../../src/sys/mod.ts";
import { vhu } from "../../support/machine-fixture.ts";
import { LiveRig } from "./live-pair.ts";

/** So that nobody has to wait for two minutes. */
export const QUICK: Patience = { stepMs: 400, stallMs: 800, handOverMs: 600, lastWordMs: 200 };
export const MEMORY_BYTES = 1 << 20;
export const REGION = { id: 0, guestAddress: 0, sizeBytes: MEMORY_BYTES, name: "ram" };
export const MACHINE = { name: "m", socket: "/m.sock", memory: { "size-mib": 1 }, device: [], workload: [] };

/** A receiver of native machines without devices, whose sender a test plays. */
export class HostileRig implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "vhu-hostile-"));
  readonly log = new OperationsLog(join(this.folder, "operations"));
  readonly room = new ArrivalRoom();
  /** How each arrival ended. */
  readonly outcomes: Promise<ReceiveReport | Error | undefined>[] = [];
  readonly cancel = new AbortController();
  patience = QUICK;

  private constructor(readonly rig: LiveRig) {
    rig.onSession = (session) => {
      session.patience = this.patience;
      this.outcomes.push(this.#receive(session).catch((error: Error) => error));
    };
  }

  static async start(): Promise<HostileRig> {
    return new HostileRig(await LiveRig.start({ security: { kind: "insecure" } }));
  }

  open(): Promise<Session> {
    return this.rig.open({ security: { kind: "insecure" }, streams: 2, retryMs: 0 });
  }

  /** Sends what a sender would say until this message, which is not said. */
  async openUpTo(kind: "offer" | "prepare" | "manifest"): Promise<Session> {
    const session = await this.open();
    if (kind === "offer") return session;
    await session.say(offer());
    await session.expect("checked");
    if (kind === "prepare") return session;
    await session.say({ kind: "prepare", memoryMap: [REGION] });
    await session.expect("prepared");
    return session;
  }

  /** What the first arrival ended with. */
  async failure(): Promise<Error> {
    const outcome = await this.outcomes[0];
    if (outcome instanceof Error) return outcome;
    throw new Error(`it did not fail: ${JSON.stringify(outcome)}`);
  }

  /** Nothing of what has arrived is here any more. */
  async leftovers(): Promise<string[]> {
    const pids = this.log.list().flatMap(({ id }) => processesWithVariable(OPERATION_VARIABLE, id));
    for (let i = 0; i < 400 && pids.some(({ pid }) => isThere(pid)); i += 1) await Bun.sleep(5);
    const left = this.log.list().filter(({ outcome }) => outcome === undefined);
    const sockets = readdirSync(this.folder).filter((name) => name.endsWith(".sock"));
    return [
      ...pids.filter(({ pid }) => isThere(pid)).map(({ pid }) => `process ${pid}`),
      ...left.map(({ id, phase }) => `${id} ${phase}`),
      ...(this.room.hasName("m") ? ["its name"] : []),
      ...sockets.filter(() => pids.length > 0 && pids.some(({ pid }) => isThere(pid))),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel.abort(new CancelledError("the test is over"));
    this.rig[Symbol.dispose]();
    await Promise.all(this.outcomes);
    for (const { id } of this.log.list()) {
      for (const { pid } of processesWithVariable(OPERATION_VARIABLE, id)) process.kill(pid, "SIGKILL");
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #receive(session: Session): Promise<ReceiveReport | undefined> {
    return receiveMachine(session, {
      policy: { allow: ["machine", "qemu"], roots: [this.folder], socketFolder: this.folder, vhu },
      ...{ logger: this.rig.logger, log: this.log, room: this.room, signal: this.cancel.signal },
    });
  }
}

export function offer(change: Partial<Offer> = {}): Offer {
  return {
    ...{ kind: "offer", ...hostFacts(), name: "m", type: "machine", runState: "running" },
    ...{ memoryBytes: MEMORY_BYTES, machine: MACHINE, disks: [], checkOnly: false },
    ...change,
  };
}

/** One of each, as they may be. */
export const WORDS: readonly LiveMessage[] = [
  offer(),
  { kind: "checked", host: "x", checks: [], ok: true },
  { kind: "prepare", memoryMap: [REGION] },
  { kind: "prepared" },
  {
    kind: "manifest",
    manifest: { machine: MACHINE, devices: [], memory: { totalBytes: MEMORY_BYTES } },
  },
  { kind: "end", lastSequences: [0, 0], root: "00".repeat(32) },
  { kind: "loaded", loadMs: 0, memoryBytes: 0 },
  { kind: "released" },
  { kind: "aborted", reason: "x" },
  { kind: "running", resumeMs: 0, address: "x" },
  { kind: "abandoned", reason: "x" },
  { kind: "lost", reason: "x" },
];

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
