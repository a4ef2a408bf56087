import { FormatError, PeerError, StateError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { parseMachineConfig } from "../machine-file/mod.ts";
import { OPERATION_VARIABLE, Operation, type OperationsLog } from "../operations/mod.ts";
import { GuestMemory } from "../ram/mod.ts";
import type { SnapshotRegion } from "../snapshot/mod.ts";
import type { ImageOutline } from "../storage/mod.ts";
import { type Arrival, addressOf, startArrival } from "./arrival.ts";
import {
  type ArrivalPolicy,
  checkArrival,
  checkArrivalCpu,
  EXTRA_MEMORY_BYTES,
  planArrivingDisks,
} from "./arrival-policy.ts";
import type { ArrivalRoom, HeldPlace, PlaceWish } from "./arrival-room.ts";
import { ArrivingDisks } from "./arriving-disks.ts";
import { DestinationSide } from "./destination-side.ts";
import { diskPathsOf } from "./disk-markers.ts";
import { FrameType } from "./frame.ts";
import { hostFacts } from "./host-facts.ts";
import type { Offer } from "./messages.ts";
import { offeredManifest } from "./offered-machine.ts";
import { ReceivedMachine } from "./received-machine.ts";
import type { Session } from "./session.ts";
import type { Step } from "./steps.ts";

export interface ReceiveOptions {
  readonly policy: ArrivalPolicy;
  readonly logger: Logger;
  readonly log: OperationsLog;
  /** What all machines that are arriving have got. */
  readonly room: ArrivalRoom;
  /** The user's Ctrl-C. */
  readonly signal: AbortSignal;
  readonly onProgress?:
    | ((progress: { readonly name: string; readonly doneBytes: number }) => void)
    | undefined;
}

export interface ReceiveReport {
  readonly name: string;
  readonly address: string;
  readonly pid: number;
  readonly logPath: string;
  readonly memoryBytes: number;
  /** Of memory as it came, pass after pass; what was never used has not. */
  readonly receivedBytes: number;
  readonly wireBytes: number;
  readonly reconnections: number;
  /** From the last of the data to the loaded machine, and from the word that it may run to when it does. */
  readonly loadMs: number;
  readonly resumeMs: number;
  readonly totalMs: number;
  /** Of the switch-over. */
  readonly steps: readonly Step[];
}

/** With the images that have to be made for it here. */
type AcceptedOffer = Offer & { readonly copies: readonly ImageOutline[] };

/**
 * Takes one machine, or refuses it. Undefined after a mere look, or a refusal that the sender was told. Nothing runs before
 * all was checked and the sender has given the machine up; until then whatever fails leaves nothing behind.
 */
export async function receiveMachine(
  session: Session,
  options: ReceiveOptions,
): Promise<ReceiveReport | undefined> {
  const signal = AbortSignal.any([session.signal, options.signal]);
  try {
    const offer = await session.expect("offer", signal, "stepMs");
    const cpu = await checkArrivalCpu(offer, options.policy, options.room);
    // No wait from here until its place is held.
    const checks = [...checkArrival(offer, options.policy, options.room), ...cpu];
    const { copies } = planArrivingDisks(offer, options.policy, options.room);
    const ok = checks.every((check) => check.ok);
    const paths = copies.length === 0 ? {} : { copies: copies.map(({ path }) => path) };
    // At once: two that come together must not both be promised the same.
    using place = ok && !offer.checkOnly ? options.room.hold(wishOf(offer)) : undefined;
    await session.say({ kind: "checked", host: hostFacts().host, checks, ok, ...paths });
    for (const { name, detail } of checks.filter((check) => !check.ok)) {
      options.logger.warn(`${offer.name} from ${offer.host} is refused: ${name}: ${detail}`);
    }
    if (place !== undefined) return await take(session, { ...offer, copies }, { ...options, place }, signal);
    await untilClosed(session, signal);
    return undefined;
  } catch (error) {
    await session.abandon(error);
    throw error;
  }
}

function wishOf({ name, memoryBytes, machine }: Offer): PlaceWish {
  return { name, memoryBytes, disks: diskPathsOf(machine) };
}

/** The sender closes: it has what it wanted. */
async function untilClosed(session: Session, signal: AbortSignal): Promise<void> {
  try {
    await session.next(signal, "stepMs");
  } catch (error) {
    if (session.failure === undefined) throw error;
  }
  session.finish();
}

async function take(
  session: Session,
  offer: AcceptedOffer,
  options: ReceiveOptions & { readonly place: HeldPlace },
  signal: AbortSignal,
): Promise<ReceiveReport> {
  const startMs = performance.now();
  const { policy, logger, place } = options;
  // Where disks are copied, their files are made before the memory's layout comes.
  const hasDisks = offer.copies.length > 0;
  const early = hasDisks ? undefined : await expectMemory(session, offer, policy, signal);
  if (hasDisks) await session.expect("prepare-disks", signal, "stepMs");
  using operation = beginOperation(session, offer, options);
  const side = new DestinationSide(session, operation, (line) => logger.error(`${offer.name}: ${line}`));
  using disks = new ArrivingDisks(offer.copies, session.identity.streams, (identity) =>
    operation.phase(operation.record.phase, { images: [identity] }),
  );
  side.onAbandoned = () => disks.remove();
  const tell = (doneBytes: number) => options.onProgress?.({ name: offer.name, doneBytes });
  const memoryMap =
    early ?? (await untilLoaded(side, () => takeDisks(session, disks, offer, policy, signal, tell)));
  using memory = GuestMemory.create(memoryMap);
  using received = new ReceivedMachine(session, memoryMap, (id) => memory.fd(id), place.takeState);
  session.onData = (frame) => {
    const work = frame.type === FrameType.disk ? undefined : received.take(frame);
    if (frame.type === FrameType.disk) disks.take(frame);
    place.arrivedBytes = received.memoryBytes;
    tell(disks.receivedBytes + received.memoryBytes);
    return work;
  };
  using arrival = await untilLoaded(side, (fail) => {
    const marked = <T>(start: () => T) => withVariable(operation, start);
    const starting = startArrival(offer, memoryMap, memory, { policy, signal, marked });
    starting.catch(fail);
    const loading = load(side, { received, disks }, starting, offer, signal);
    // What was started ends with a load that failed, once the side has dropped it in an orderly way.
    const end = () => side.ended.then(() => starting).then((arrival) => arrival[Symbol.dispose]());
    loading.catch(() => end().catch(() => {}));
    return loading;
  });
  const { address, pid, logPath } = arrival;
  Object.assign(side.figures, { memoryBytes: received.memoryBytes, address });
  await handOver(side, options.signal);
  await session.settled(SETTLE_MS);
  const { wireBytes, reconnections } = session;
  session.finish();
  return {
    ...{ name: offer.name, address, pid, logPath, wireBytes, reconnections },
    ...{ memoryBytes: offer.memoryBytes, receivedBytes: received.memoryBytes },
    ...{ loadMs: side.figures.loadMs, resumeMs: side.figures.resumeMs, totalMs: performance.now() - startMs },
    steps: side.steps.list,
  };
}

/** Ends with a machine that is complete, and would stay if this process died. */
async function load(
  side: DestinationSide,
  { received, disks }: { readonly received: ReceivedMachine; readonly disks: ArrivingDisks },
  starting: Promise<Arrival>,
  offer: Offer,
  signal: AbortSignal,
): Promise<Arrival> {
  const { session, operation } = side;
  await session.say({ kind: "prepared" });
  // Before the sender's machine stands still.
  const started = starting.then((arrival) => {
    side.driver = arrival.driver;
    // The machine first: of it the log's readers ask whether it lives.
    operation.started(offer.type, arrival.pid);
    for (const { what, pid } of arrival.backends) operation.started(what, pid);
    operation.phase(side.name, { runsAt: arrival.address });
    return arrival;
  });
  started.catch(() => {});
  const manifest = offeredManifest(offer, (await session.expect("manifest", signal)).manifest);
  side.steps.done("heard manifest");
  const { lastSequences, root, diskChunks = [] } = await session.expect("end", signal);
  side.steps.done("heard end");
  await session.received(lastSequences, signal);
  side.steps.done("received");
  const endMs = performance.now();
  disks.complete(diskChunks);
  const durable = disks.sync();
  durable.catch(() => {});
  const arrival = await started;
  await arrival.driver.prepareLoad(received.source(manifest, root), { signal });
  await durable;
  side.steps.done("loaded");
  // From here on it stays, whoever dies, until it is known who runs it.
  await arrival.driver.leavePrepared();
  arrival.release();
  side.figures.loadMs = performance.now() - endMs;
  return arrival;
}

function beginOperation(session: Session, offer: Offer, { log, policy }: ReceiveOptions): Operation {
  return Operation.begin(log, {
    ...{ kind: "receive", source: `${offer.name} of ${offer.host} (${session.peer})` },
    target: addressOf(offer, policy),
    facts: { machine: offer.name, runsAt: addressOf(offer, policy), handover: { state: "receiving" } },
  });
}

/** What is started carries the operation's id: recovery finds it by that. */
function withVariable<T>({ id }: Operation, start: () => T): T {
  process.env[OPERATION_VARIABLE] = id;
  try {
    return start();
  } finally {
    delete process.env[OPERATION_VARIABLE];
  }
}

/** Whatever fails in here, nothing of the machine stays here. */
async function untilLoaded<T>(
  side: DestinationSide,
  load: (fail: (error: unknown) => void) => Promise<T>,
): Promise<T> {
  const failure = Promise.withResolvers<never>();
  const loading = load(failure.reject);
  try {
    return await Promise.race([loading, failure.promise]);
  } catch (error) {
    // The sender hears the reason, and not only that there is no such migration any more.
    await side.session.abandon(error);
    await side.give({ type: "load-failed", reason: (error as Error).message });
    throw error;
  }
}

/** The machine is loaded and checked. It runs when the sender has given it up, and not before. */
async function handOver(side: DestinationSide, user: AbortSignal): Promise<void> {
  try {
    await side.give({ type: "loaded" });
    while (!side.isEnded) await side.hear(await side.session.lastWord(user));
  } catch (cause) {
    if (side.isEnded || side.name === "owner") throw cause;
    await side.give({ type: "give-up", reason: (cause as Error).message });
    throw new StateError(
      `the connection was lost while the machine was handed over: it waits here, loaded; see vhu migrate status on both sides`,
      { cause },
    );
  }
  if (side.name !== "running") throw new StateError("the machine was dropped here: it goes on at the sender");
}

/** Makes the images and takes what comes of them, until the memory's layout comes: from then on both come. */
async function takeDisks(
  session: Session,
  disks: ArrivingDisks,
  offer: Offer,
  policy: ArrivalPolicy,
  signal: AbortSignal,
  tell: (doneBytes: number) => void,
): Promise<readonly SnapshotRegion[]> {
  disks.create();
  session.onData = (frame) => {
    if (frame.type !== FrameType.disk)
      throw new FormatError("memory came before its layout", `stream ${frame.stream}`);
    disks.take(frame);
    tell(disks.receivedBytes);
    return undefined;
  };
  await session.say({ kind: "disks-prepared" });
  const memoryMap = await expectMemory(session, offer, policy, signal);
  // What has come is on its way to the disk while the memory comes.
  disks.syncLater();
  return memoryMap;
}

async function expectMemory(
  session: Session,
  offer: Offer,
  policy: ArrivalPolicy,
  signal: AbortSignal,
): Promise<readonly SnapshotRegion[]> {
  const { memoryMap } = await session.expect("prepare", signal);
  const totalBytes = memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  requireRoom(totalBytes, offer, policy);
  return memoryMap;
}

/** What comes is what was offered and looked at. A native machine maps all that its description says. @throws PeerError */
function requireRoom(totalBytes: number, offer: Offer, { memoryMaxBytes }: ArrivalPolicy): void {
  const { memoryBytes, type, machine } = offer;
  const described =
    type === "machine" ? parseMachineConfig(machine, "offer").memory["size-mib"] * 2 ** 20 : totalBytes;
  if (described !== totalBytes || (type === "machine" && described !== memoryBytes)) {
    throw new PeerError(`the sender wants ${totalBytes} bytes of memory for a machine that has ${described}`);
  }
  const most = Math.min(memoryBytes + EXTRA_MEMORY_BYTES, memoryMaxBytes ?? Number.POSITIVE_INFINITY);
  if (totalBytes <= most) return;
  throw new PeerError(
    `the sender wants ${totalBytes} bytes of memory, and offered a machine of ${memoryBytes}`,
  );
}

const SETTLE_MS = 5_000;
