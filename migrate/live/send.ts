import { CancelledError, CompatibilityError, StateError, VhuError } from "../../src/errors.ts";
import type { PassReport, PrecopyOptions, PreflightCheck, VmDescription, VmDriver } from "../driver.ts";
import type { Operation } from "../operations/mod.ts";
import { isQemuMachine } from "../qemu/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";
import type { CompressSetting } from "./compression-level.ts";
import { DiskMarkers, diskPathsOf } from "./disk-markers.ts";
import { DiskSender, type SentDisk } from "./disk-sender.ts";
import { expectedMove } from "./expected-move.ts";
import { hostFacts } from "./host-facts.ts";
import { LiveSink } from "./live-sink.ts";
import { measureLink } from "./measure-link.ts";
import type { LiveMessage, Offer } from "./messages.ts";
import { type CopiedDisk, OfferedStorage } from "./offered-storage.ts";
import { type OpenSessionOptions, openSession } from "./open-session.ts";
import { RateLimit } from "./rate-limit.ts";
import type { SendProgress } from "./send-meter.ts";
import { SendWatch } from "./send-watch.ts";
import type { Session } from "./session.ts";
import { SourceSide } from "./source-side.ts";
import type { Step } from "./steps.ts";

export interface SendOptions extends OpenSessionOptions {
  readonly compress: CompressSetting;
  readonly bandwidthMaxBytes?: number | undefined;
  readonly downtimeMaxMs?: number | undefined;
  readonly throttle?: PrecopyOptions["throttle"];
  /** Copy the disks that the other side does not have. */
  readonly copyStorage?: boolean | undefined;
  /** The log gets each step before it is taken. */
  readonly operation: Operation;
  /** What the user must know. */
  readonly onLine: (line: string) => void;
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
  /** The disks that are to be copied. */
  readonly copies: readonly CopiedDisk[];
  /** Of the memory, what is in use as far as the source's host can see. */
  readonly inUseBytes: number;
  /** How fast the machine changes its memory, where that is known before. */
  readonly dirtyBytesPerSecond: number | undefined;
  /** Undefined where it is not known, or never over: as `expectedMove` reckons. */
  readonly expectedMs: number | undefined;
  readonly expectedDowntimeMs: number | undefined;
}

export interface SendReport {
  readonly name: string;
  readonly target: string;
  readonly memoryBytes: number;
  /** Of memory as it was given, pass after pass, holes too; and as it went out. */
  readonly givenBytes: number;
  readonly packedBytes: number;
  readonly wireBytes: number;
  readonly passes: readonly PassReport[];
  readonly reconnections: number;
  /** From when it stopped to the other side's word that it runs, by this host's clock. */
  readonly downtimeMs: number;
  /** Of these, what the other side took to load and to let it run, by its own clock. */
  readonly loadMs: number;
  readonly resumeMs: number;
  readonly totalMs: number;
  /** Those that were copied. */
  readonly disks: readonly SentDisk[];
  /** Of the switch-over. */
  readonly steps: readonly Step[];
}

/** Looks at both sides, and moves nothing. */
export async function checkSend(
  driver: VmDriver,
  options: OpenSessionOptions & Pick<SendOptions, "downtimeMaxMs" | "copyStorage">,
): Promise<Preflight> {
  const description = await describe(driver);
  const own = await driver.preflight();
  const storage = await storageOf(driver, options);
  const dirtyRate = dirtyRateOf(driver, description, CHECK_RATE_MS);
  using markers = new DiskMarkers(diskPathsOf(description.machine));
  using session = await openSession(options);
  const preflight = await preflightWith(
    session,
    { description, own, storage, markers, dirtyRate, checkOnly: true },
    options,
  );
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
  const { operation } = options;
  using stack = new DisposableStack();
  let session: Session | undefined;
  try {
    const description = await describe(driver);
    const own = await driver.preflight();
    const storage = await storageOf(driver, options);
    const dirtyRate = dirtyRateOf(driver, description, SEND_RATE_MS);
    const markers = stack.use(new DiskMarkers(diskPathsOf(description.machine)));
    session = stack.use(await openSession(options));
    const found = { description, own, storage, markers, dirtyRate, checkOnly: false };
    const preflight = await preflightWith(session, found, options);
    options.onPreflight?.(preflight);
    requireGood(preflight);
    return await move(driver, session, preflight, options, startMs);
  } catch (error) {
    await session?.abandon(error);
    // Once a hand-over has begun, its own outcome stands, or it is open.
    if (operation.record.phase === "begun" && error instanceof VhuError) operation.end(outcomeOf(error));
    throw error;
  }
}

function outcomeOf(error: VhuError) {
  const result = error instanceof CancelledError ? ("cancelled" as const) : ("failed" as const);
  return { result, message: error.message };
}

type WholeMachine = VmDescription & {
  readonly machine: Readonly<Record<string, unknown>>;
  readonly cpuFeatures: readonly string[] | undefined;
};

async function describe(driver: VmDriver): Promise<WholeMachine> {
  const description = await driver.describe();
  const { machine } = description;
  if (machine === undefined)
    throw new CompatibilityError("only a whole machine can be sent: qmp:PATH or machine:PATH");
  return { ...description, machine, cpuFeatures: await driver.cpuFeatures?.() };
}

/** What the source has found on its own. */
interface Found {
  readonly description: WholeMachine;
  readonly own: readonly PreflightCheck[];
  /** Where disks may be copied. */
  readonly storage: OfferedStorage | undefined;
  readonly markers: DiskMarkers;
  readonly dirtyRate: Promise<number | undefined>;
  readonly checkOnly: boolean;
}

async function storageOf(
  driver: VmDriver,
  { copyStorage }: Pick<SendOptions, "copyStorage">,
): Promise<OfferedStorage | undefined> {
  return copyStorage ? new OfferedStorage((await driver.disks?.()) ?? []) : undefined;
}

async function preflightWith(
  session: Session,
  { description, own, storage, markers: { disks }, dirtyRate, checkOnly }: Found,
  { signal, downtimeMaxMs }: Pick<SendOptions, "signal" | "downtimeMaxMs">,
): Promise<Preflight> {
  const { name, runState, memoryBytes, machine, cpuFeatures } = description;
  const { residentBytes: inUseBytes = memoryBytes } = description;
  const type = isQemuMachine(machine) ? "qemu" : "machine";
  const offer: Offer = {
    ...{ kind: "offer", ...hostFacts(), name, type, runState, memoryBytes },
    machine: { ...machine },
    disks: disks.map((disk) => ({ ...disk, copy: storage?.copyOf(disk.path) })),
    checkOnly,
    ...(cpuFeatures === undefined ? {} : { cpuFeatures: [...cpuFeatures] }),
  };
  await session.say(offer);
  const { checks, ok, copies: paths = [] } = await session.expect("checked", signal, "stepMs");
  const here = [...own, ...(storage?.checks ?? []), ...(storage?.checksOf(paths) ?? [])];
  const copies = storage?.copiesOf(paths) ?? [];
  const all = [
    ...here.map((check) => ({ ...check, side: "source" as const })),
    ...checks.map((check) => ({ ...check, side: "destination" as const })),
  ];
  const isGood = ok && here.every((check) => check.ok);
  const link = isGood ? await measureLink(session, signal) : undefined;
  const dirtyBytesPerSecond = await dirtyRate;
  const facts = { inUseBytes, dirtyBytesPerSecond };
  const toBring = { ...facts, inUseBytes: inUseBytes + usedBytes(copies) };
  const expected = link === undefined ? undefined : expectedMove({ ...toBring, ...link, downtimeMaxMs });
  return {
    ...{ name, ok: isGood, checks: all, memoryBytes, copies, ...facts },
    bytesPerSecond: link?.bytesPerSecond,
    roundTripMs: link?.roundTripMs,
    expectedMs: expected?.expectedMs,
    expectedDowntimeMs: expected?.expectedDowntimeMs,
  };
}

/** How long the memory's changes are looked at: for somebody who only asks, and before a move, which they must not delay. */
const CHECK_RATE_MS = 1_000;
const SEND_RATE_MS = 200;

/** Not waited for: the other side is asked meanwhile. */
async function dirtyRateOf(
  driver: VmDriver,
  { runState }: VmDescription,
  milliseconds: number,
): Promise<number | undefined> {
  return runState === "running" ? driver.dirtyRate?.(milliseconds) : 0;
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
  preflight: Preflight,
  options: SendOptions,
  startMs: number,
): Promise<SendReport> {
  const signal = AbortSignal.any([session.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const { name, memoryBytes, copies } = preflight;
  const rate = new RateLimit(options.bandwidthMaxBytes);
  using sink = new LiveSink(session, {
    ...{ compress: options.compress, rate },
    prepare: (memoryMap) => prepare(session, memoryMap, signal),
  });
  const disks =
    copies.length === 0
      ? undefined
      : new DiskSender(session, {
          ...{ paths: copies.map(({ path }) => path), rate, compress: options.compress },
          onGiven: () => watch.tellDisks(usedBytes(copies)),
        });
  const watch = new SendWatch(session, sink, preflight, options, disks);
  const side = new SourceSide(driver, session, options.operation, options.onLine);
  const loaded = await untilLoaded(side, async () => {
    if (disks !== undefined) await prepareDisks(session, options.operation, signal);
    const copyDisks = disks && { paths: copies.map(({ path }) => path), sink: disks };
    await driver.startPrecopy(sink, { ...options, signal, ...watch.listeners, copyDisks });
    side.steps.done("stopped", watch.stoppedMs);
    side.steps.done("given");
    await sink.finish(disks?.disks.map(({ chunks }) => chunks));
    side.steps.done("sent");
    await side.give({ type: "sent" });
    watch.tell("loading", memoryBytes, memoryBytes);
    const word = await session.expect("loaded", signal);
    side.steps.done("heard loaded");
    return word;
  });
  const { resumeMs, address } = await handOver(side, loaded, options.signal);
  const [runningMs, endMs] = [Date.now(), performance.now()];
  await session.settled(SETTLE_MS);
  const { reconnections, wireBytes } = session;
  session.finish();
  return {
    ...{
      name,
      target: address,
      memoryBytes,
      givenBytes: sink.memoryBytes,
      packedBytes: sink.packedBytes,
      wireBytes,
      passes: watch.passes,
      reconnections,
    },
    disks: disks?.disks ?? [],
    ...{ downtimeMs: runningMs - watch.stoppedMs, loadMs: loaded.loadMs, resumeMs, totalMs: endMs - startMs },
    steps: side.steps.list,
  };
}

/** Whatever fails in here, the machine goes on here. */
async function untilLoaded<Loaded>(side: SourceSide, copy: () => Promise<Loaded>): Promise<Loaded> {
  try {
    return await copy();
  } catch (error) {
    side.isCancelled = error instanceof CancelledError;
    await side.give({ type: "give-up", reason: (error as Error).message });
    throw error;
  }
}

/** The other side has loaded and checked all of it: from here on it never runs here again, unless that side drops it. */
async function handOver(side: SourceSide, loaded: LiveMessage, user: AbortSignal | undefined) {
  const { session } = side;
  let last = loaded;
  try {
    await side.hear(last);
    while (!side.isEnded) {
      last = await session.lastWord(user);
      // The machine runs there: that it is ended here can wait.
      await side.hear(last);
    }
  } catch (cause) {
    if (side.isEnded) throw cause;
    await side.give({ type: "give-up", reason: (cause as Error).message });
    throw new StateError(
      "the machine was given up here and the other side has it, loaded and checked, but did not say that it runs: see vhu migrate status on both sides",
      { cause },
    );
  }
  if (last.kind === "running") return last;
  throw new StateError("the other side has dropped the machine: it goes on here");
}

/** The other side makes the images. From here on the machine may be left with the means of copying, if vhu is killed. */
async function prepareDisks(session: Session, operation: Operation, signal: AbortSignal): Promise<void> {
  operation.phase(operation.record.phase, { copiesDisks: true });
  await session.say({ kind: "prepare-disks" });
  await session.expect("disks-prepared", signal, "stepMs");
}

function usedBytes(copies: readonly CopiedDisk[]): number {
  return copies.reduce((sum, disk) => sum + disk.usedBytes, 0);
}

/** The memory's layout; memory may go out when the other side has room for it. */
async function prepare(
  session: Session,
  memoryMap: readonly SnapshotRegion[],
  signal: AbortSignal,
): Promise<void> {
  await session.say({ kind: "prepare", memoryMap: [...memoryMap] });
  await session.expect("prepared", signal, "stepMs");
}

/** How long the last words may take. */
const SETTLE_MS = 5_000;
