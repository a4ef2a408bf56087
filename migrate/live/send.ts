import { CompatibilityError, StateError } from "../../src/errors.ts";
import type { MoveOptions, PassReport, PreflightCheck, VmDescription, VmDriver } from "../driver.ts";
import { isQemuMachine } from "../qemu/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";
import type { CompressSetting } from "./compression-level.ts";
import { copyMachine, giveUp } from "./copy-machine.ts";
import { DiskMarkers, diskPathsOf } from "./disk-markers.ts";
import { hostFacts } from "./host-facts.ts";
import { LiveSink } from "./live-sink.ts";
import { measureLink } from "./measure-link.ts";
import type { Offer } from "./messages.ts";
import { type OpenSessionOptions, openSession } from "./open-session.ts";
import type { Session } from "./session.ts";

/** What a sender tells while it works. */
export interface SendProgress {
  readonly phase: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Of memory as it went out, and of all on the wire. */
  readonly packedBytes: number;
  readonly wireBytes: number;
  readonly reconnections: number;
}

export interface SendOptions extends OpenSessionOptions {
  readonly compress: CompressSetting;
  readonly bandwidthMaxBytes?: number | undefined;
  readonly downtimeMaxMs?: number | undefined;
  readonly throttle?: boolean | undefined;
  readonly onProgress?: ((progress: SendProgress) => void) | undefined;
  readonly onPass?: ((report: PassReport) => void) | undefined;
  /** Told what both sides found before anything moves. */
  readonly onPreflight?: ((preflight: Preflight) => void) | undefined;
}

export interface Preflight {
  readonly name: string;
  readonly ok: boolean;
  readonly checks: readonly (PreflightCheck & { readonly side: "source" | "destination" })[];
  /** Of the link, measured; undefined where the receiver refused before. */
  readonly bytesPerSecond: number | undefined;
  readonly roundTripMs: number | undefined;
  readonly memoryBytes: number;
  /** For all of the memory once, not compressed. */
  readonly expectedMs: number | undefined;
}

export interface SendReport {
  readonly name: string;
  readonly target: string;
  readonly memoryBytes: number;
  readonly packedBytes: number;
  readonly wireBytes: number;
  readonly passes: readonly PassReport[];
  readonly reconnections: number;
  /** From the end of the copying to the other side's word that it runs, by this host's clock. */
  readonly downtimeMs: number;
  /** Of these, what the other side took to load and to let it run, by its own clock. */
  readonly loadMs: number;
  readonly resumeMs: number;
  readonly totalMs: number;
}

/** Looks at both sides, and moves nothing. */
export async function checkSend(driver: VmDriver, options: OpenSessionOptions): Promise<Preflight> {
  const description = await describe(driver);
  const own = await driver.preflight();
  using markers = new DiskMarkers(diskPathsOf(description.machine));
  using session = await openSession(options);
  const preflight = await preflightWith(session, description, own, markers, true, options.signal);
  session.finish();
  return preflight;
}

/**
 * Moves a running machine to a receiver. Until the receiver has loaded and checked all of it, whatever fails leaves the
 * machine running here; from then on it never runs here again.
 *
 * @throws CompatibilityError PREFLIGHT where a side found something in the way, PeerError, and what the signal was aborted with
 */
export async function sendMachine(driver: VmDriver, options: SendOptions): Promise<SendReport> {
  const startMs = performance.now();
  const description = await describe(driver);
  const own = await driver.preflight();
  using markers = new DiskMarkers(diskPathsOf(description.machine));
  using session = await openSession(options);
  try {
    const preflight = await preflightWith(session, description, own, markers, false, options.signal);
    options.onPreflight?.(preflight);
    requireGood(preflight);
    return await move(driver, session, description, options, startMs);
  } catch (error) {
    await session.abandon(error);
    throw error;
  }
}

type WholeMachine = VmDescription & { readonly machine: Readonly<Record<string, unknown>> };

async function describe(driver: VmDriver): Promise<WholeMachine> {
  const description = await driver.describe();
  const { machine } = description;
  if (machine === undefined)
    throw new CompatibilityError("only a whole machine can be sent: qmp:PATH or machine:PATH");
  return { ...description, machine };
}

async function preflightWith(
  session: Session,
  { name, runState, memoryBytes, machine }: WholeMachine,
  own: readonly PreflightCheck[],
  { disks }: DiskMarkers,
  checkOnly: boolean,
  signal: AbortSignal | undefined,
): Promise<Preflight> {
  const type = isQemuMachine(machine) ? "qemu" : "machine";
  const offer: Offer = {
    ...{ kind: "offer", ...hostFacts(), name, type, runState, memoryBytes },
    machine: { ...machine },
    disks: disks.map((disk) => ({ ...disk })),
    checkOnly,
  };
  await session.say(offer);
  const { checks, ok } = await session.expect("checked", signal);
  const all = [
    ...own.map((check) => ({ ...check, side: "source" as const })),
    ...checks.map((check) => ({ ...check, side: "destination" as const })),
  ];
  const isGood = ok && own.every((check) => check.ok);
  const link = isGood ? await measureLink(session) : undefined;
  return {
    ...{ name, ok: isGood, checks: all, memoryBytes },
    bytesPerSecond: link?.bytesPerSecond,
    roundTripMs: link?.roundTripMs,
    expectedMs: link === undefined ? undefined : (memoryBytes / link.bytesPerSecond) * 1000,
  };
}

function requireGood({ ok, checks }: Preflight): void {
  if (ok) return;
  const failed = checks.filter((check) => !check.ok);
  const list = failed.map(({ side, name, detail }) => `${side}: ${name}: ${detail}`);
  throw new CompatibilityError(list.join("; "), {}, "PREFLIGHT");
}

async function move(
  driver: VmDriver,
  session: Session,
  { name, memoryBytes }: WholeMachine,
  options: SendOptions,
  startMs: number,
): Promise<SendReport> {
  const signal = AbortSignal.any([session.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const passes: PassReport[] = [];
  using sink = new LiveSink(session, {
    ...options,
    prepare: (memoryMap) => prepare(session, memoryMap, signal),
  });
  const tell = (phase: string, doneBytes: number, totalBytes: number) => {
    const { wireBytes, reconnections } = session;
    options.onProgress?.({
      phase,
      doneBytes,
      totalBytes,
      packedBytes: sink.packedBytes,
      wireBytes,
      reconnections,
    });
  };
  let stoppedMs = performance.now();
  const onPass = (pass: PassReport) => {
    passes.push(pass);
    options.onPass?.(pass);
    stoppedMs = performance.now();
  };
  const onProgress: MoveOptions["onProgress"] = ({ phase, done, total }) => tell(phase, done, total);
  const loadMs = await untilLoaded(driver, session, async () => {
    await copyMachine(driver, sink, { ...options, signal, onProgress, onPass });
    await sink.finish();
    tell("loading", memoryBytes, memoryBytes);
    return session.expect("loaded", signal);
  });
  const { resumeMs, address } = await handOver(driver, session);
  const endMs = performance.now();
  await session.settled(SETTLE_MS);
  const { reconnections, wireBytes } = session;
  session.finish();
  return {
    ...{
      name,
      target: address,
      memoryBytes,
      packedBytes: sink.packedBytes,
      wireBytes,
      passes,
      reconnections,
    },
    ...{ downtimeMs: endMs - stoppedMs, loadMs, resumeMs, totalMs: endMs - startMs },
  };
}

/** The memory's layout; memory may go out when the other side has room for it. */
async function prepare(
  session: Session,
  memoryMap: readonly SnapshotRegion[],
  signal: AbortSignal,
): Promise<void> {
  await session.say({ kind: "prepare", memoryMap: [...memoryMap] });
  await session.expect("prepared", signal);
}

/** Whatever fails in here, the machine goes on here. */
async function untilLoaded(
  driver: VmDriver,
  session: Session,
  copy: () => Promise<{ readonly loadMs: number }>,
): Promise<number> {
  try {
    return (await copy()).loadMs;
  } catch (error) {
    await driver.resume();
    await session.abandon(error);
    throw error;
  }
}

/** The other side has loaded and checked all of it: from here on it never runs here again. */
async function handOver(driver: VmDriver, session: Session) {
  await giveUp(driver);
  try {
    await session.say({ kind: "released" });
    return await session.expect("running");
  } catch (cause) {
    throw new StateError(
      "the machine was given up here and the other side has it, loaded and checked, but did not say that it runs: look there with vhu migrate status, and let it go on with vhu migrate recover",
      { cause },
    );
  }
}

/** How long the last words may take. */
const SETTLE_MS = 5_000;
