import { PeerError, StateError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { parseMachineConfig } from "../machine-file/mod.ts";
import { OPERATION_VARIABLE, Operation, type OperationsLog } from "../operations/mod.ts";
import { GuestMemory } from "../ram/mod.ts";
import { type Arrival, addressOf, startArrival } from "./arrival.ts";
import { type ArrivalPolicy, checkArrival } from "./arrival-policy.ts";
import type { ArrivalRoom, HeldPlace, PlaceWish } from "./arrival-room.ts";
import { DestinationSide } from "./destination-side.ts";
import { diskPathsOf } from "./disk-markers.ts";
import { hostFacts } from "./host-facts.ts";
import type { Offer } from "./messages.ts";
import { offeredManifest } from "./offered-machine.ts";
import { ReceivedMachine } from "./received-machine.ts";
import type { Session } from "./session.ts";

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
}

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
    const offer = await session.expect("offer", signal);
    const checks = checkArrival(offer, options.policy, options.room);
    const ok = checks.every((check) => check.ok);
    // At once: two that come together must not both be promised the same.
    using place = ok && !offer.checkOnly ? options.room.hold(wishOf(offer)) : undefined;
    await session.say({ kind: "checked", host: hostFacts().host, checks, ok });
    for (const { name, detail } of checks.filter((check) => !check.ok)) {
      options.logger.warn(`${offer.name} from ${offer.host} is refused: ${name}: ${detail}`);
    }
    if (place !== undefined) return await take(session, offer, { ...options, place }, signal);
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
    await session.next(signal);
  } catch (error) {
    if (session.failure === undefined) throw error;
  }
  session.finish();
}

async function take(
  session: Session,
  offer: Offer,
  options: ReceiveOptions & { readonly place: HeldPlace },
  signal: AbortSignal,
): Promise<ReceiveReport> {
  const startMs = performance.now();
  const { policy, logger, place } = options;
  const { memoryMap } = await session.expect("prepare", signal);
  requireRoom(
    memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    offer,
    policy,
  );
  using operation = beginOperation(session, offer, options);
  using memory = GuestMemory.create(memoryMap);
  using received = new ReceivedMachine(session, memoryMap, (id) => memory.fd(id), place.takeState);
  session.onData = (frame) => {
    received.take(frame);
    place.arrivedBytes = received.memoryBytes;
    options.onProgress?.({ name: offer.name, doneBytes: received.memoryBytes });
    return undefined;
  };
  const side = new DestinationSide(session, operation, (line) => logger.error(`${offer.name}: ${line}`));
  using arrival = await untilLoaded(side, (fail) => {
    const starting = withVariable(operation, () => startArrival(offer, memoryMap, memory, policy, signal));
    starting.catch(fail);
    const loading = load(side, received, starting, offer, signal);
    // What was started ends with a load that failed.
    loading.catch(() => starting.then((arrival) => arrival[Symbol.dispose]()).catch(() => {}));
    return loading;
  });
  const { address, pid, logPath } = arrival;
  Object.assign(side.figures, { memoryBytes: received.memoryBytes, address });
  await handOver(side);
  await session.settled(SETTLE_MS);
  const { wireBytes, reconnections } = session;
  session.finish();
  return {
    ...{
      name: offer.name,
      address,
      pid,
      logPath,
      memoryBytes: offer.memoryBytes,
      receivedBytes: received.memoryBytes,
      wireBytes,
      reconnections,
    },
    ...{ loadMs: side.figures.loadMs, resumeMs: side.figures.resumeMs, totalMs: performance.now() - startMs },
  };
}

/** Ends with a machine that is complete, and would stay if this process died. */
async function load(
  side: DestinationSide,
  received: ReceivedMachine,
  starting: Promise<Arrival>,
  offer: Offer,
  signal: AbortSignal,
): Promise<Arrival> {
  const { session, operation } = side;
  await session.say({ kind: "prepared" });
  const manifest = offeredManifest(offer, (await session.expect("manifest", signal)).manifest);
  const { lastSequences, root } = await session.expect("end", signal);
  await session.received(lastSequences, signal);
  const endMs = performance.now();
  const arrival = await starting;
  side.driver = arrival.driver;
  operation.started(offer.type, arrival.pid);
  operation.phase(side.name, { runsAt: arrival.address });
  await arrival.driver.prepareLoad(received.source(manifest, root), { signal });
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
async function untilLoaded(
  side: DestinationSide,
  load: (fail: (error: unknown) => void) => Promise<Arrival>,
): Promise<Arrival> {
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
async function handOver(side: DestinationSide): Promise<void> {
  try {
    await side.give({ type: "loaded" });
    while (!side.isEnded) await side.hear(await side.session.next());
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

/** What comes is what was offered and looked at. A native machine maps all that its description says. @throws PeerError */
function requireRoom(totalBytes: number, offer: Offer, { memoryMaxBytes }: ArrivalPolicy): void {
  const { memoryBytes, type, machine } = offer;
  const described =
    type === "machine" ? parseMachineConfig(machine, "offer").memory["size-mib"] * 2 ** 20 : totalBytes;
  if (described !== totalBytes || (type === "machine" && described !== memoryBytes)) {
    throw new PeerError(`the sender wants ${totalBytes} bytes of memory for a machine that has ${described}`);
  }
  // ROMs and a graphics card's memory are not in what QEMU calls its memory.
  const most = Math.min(memoryBytes + EXTRA_BYTES, memoryMaxBytes ?? Number.POSITIVE_INFINITY);
  if (totalBytes <= most) return;
  throw new PeerError(
    `the sender wants ${totalBytes} bytes of memory, and offered a machine of ${memoryBytes}`,
  );
}

const EXTRA_BYTES = 256 << 20;
const SETTLE_MS = 5_000;
