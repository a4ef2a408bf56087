import { PeerError, StateError } from "../../src/errors.ts";
import type { Logger } from "../../src/logger.ts";
import { GuestMemory } from "../ram/mod.ts";
import type { SnapshotManifest } from "../snapshot/mod.ts";
import { type Arrival, startArrival } from "./arrival.ts";
import { type ArrivalPolicy, checkArrival } from "./arrival-policy.ts";
import { hostFacts } from "./host-facts.ts";
import type { Offer } from "./messages.ts";
import { ReceivedMachine } from "./received-machine.ts";
import type { Session } from "./session.ts";

export interface ReceiveOptions {
  readonly policy: ArrivalPolicy;
  readonly logger: Logger;
  /** Names of machines that are arriving. */
  readonly names: Set<string>;
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
    const checks = checkArrival(offer, options.policy, options.names);
    const ok = checks.every((check) => check.ok);
    await session.say({ kind: "checked", host: hostFacts().host, checks, ok });
    for (const { name, detail } of checks.filter((check) => !check.ok)) {
      options.logger.warn(`${offer.name} from ${offer.host} is refused: ${name}: ${detail}`);
    }
    if (!ok || offer.checkOnly) {
      await untilClosed(session, signal);
      return undefined;
    }
    options.names.add(offer.name);
    try {
      return await take(session, offer, options, signal);
    } finally {
      options.names.delete(offer.name);
    }
  } catch (error) {
    await session.abandon(error);
    throw error;
  }
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
  options: ReceiveOptions,
  signal: AbortSignal,
): Promise<ReceiveReport> {
  const startMs = performance.now();
  const { memoryMap } = await session.expect("prepare", signal);
  const totalBytes = memoryMap.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  requireRoom(totalBytes, offer, options.policy);
  using memory = GuestMemory.create(memoryMap);
  using received = new ReceivedMachine(session, memoryMap, (id) => memory.fd(id));
  session.onData = (frame) => {
    received.take(frame);
    options.onProgress?.({ name: offer.name, doneBytes: received.memoryBytes });
    return undefined;
  };
  const starting = startArrival(offer, memoryMap, memory, options.policy, signal);
  starting.catch((error) => session.abandon(error));
  await session.say({ kind: "prepared" });
  const { manifest } = await session.expect("manifest", signal);
  const { lastSequences, root } = await session.expect("end", signal);
  await session.received(lastSequences, signal);
  const endMs = performance.now();
  const source = received.source(manifest as SnapshotManifest, root);
  using arrival = await starting;
  await arrival.driver.prepareLoad(source, { signal });
  const loadMs = performance.now() - endMs;
  await session.say({ kind: "loaded", loadMs, memoryBytes: received.memoryBytes });
  const resumeMs = await takeOver(session, arrival, options);
  const { address, pid, logPath } = arrival;
  await session.settled(SETTLE_MS);
  const { wireBytes, reconnections } = session;
  session.finish();
  return {
    ...{
      name: offer.name,
      address,
      pid,
      logPath,
      memoryBytes: received.memoryBytes,
      wireBytes,
      reconnections,
    },
    ...{ loadMs, resumeMs, totalMs: performance.now() - startMs },
  };
}

/** The machine is loaded and checked. It runs when the sender has given it up, and not before. */
async function takeOver(session: Session, arrival: Arrival, { logger }: ReceiveOptions): Promise<number> {
  try {
    await session.expect("released");
  } catch (cause) {
    // The sender may have given it up without being able to say so: the machine stays, loaded, until somebody knows.
    await arrival.driver.leavePrepared();
    arrival.release();
    logger.error(
      `whether the sender gave the machine up is not known; it waits at ${arrival.address}, loaded`,
    );
    throw new StateError(
      `the connection was lost while the machine was handed over; it waits at ${arrival.address}: look at the other side with vhu migrate status, and let it run on one side only`,
      { cause },
    );
  }
  const startMs = performance.now();
  await arrival.driver.resume();
  arrival.release();
  const resumeMs = performance.now() - startMs;
  await session.say({ kind: "running", resumeMs, address: arrival.address });
  return resumeMs;
}

function requireRoom(totalBytes: number, { memoryBytes }: Offer, { memoryMaxBytes }: ArrivalPolicy): void {
  // ROMs and a graphics card's memory are not in what QEMU calls its memory.
  const most = Math.min(memoryBytes + EXTRA_BYTES, memoryMaxBytes ?? Number.POSITIVE_INFINITY);
  if (totalBytes <= most) return;
  throw new PeerError(
    `the sender wants ${totalBytes} bytes of memory, and offered a machine of ${memoryBytes}`,
  );
}

const EXTRA_BYTES = 256 << 20;
const SETTLE_MS = 5_000;
