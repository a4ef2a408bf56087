import { FrameType } from "./frame.ts";
import type { Session } from "./session.ts";

export interface LinkSpeed {
  readonly bytesPerSecond: number;
  readonly roundTripMs: number;
}

/** Enough to see a link of 10 Gbit/s, and a second of one of 50 Mbit/s. */
const PADDING_BYTES = 512 << 10;
const MESSAGES = 16;
const MAX_MS = 1_000;
const TIMEOUT_MS = 30_000;

/** How fast the way to the receiver is: bytes of no meaning until it has them. */
export async function measureLink(session: Session, signal?: AbortSignal): Promise<LinkSpeed> {
  const roundTripMs = await sendAndWait(session, new Uint8Array(0), signal);
  const padding = new Uint8Array(PADDING_BYTES);
  const startMs = performance.now();
  let bytes = 0;
  for (; bytes < MESSAGES * PADDING_BYTES && performance.now() - startMs < MAX_MS; bytes += PADDING_BYTES) {
    await session.send(0, FrameType.padding, padding);
  }
  await session.settled(TIMEOUT_MS, signal);
  const elapsedMs = Math.max(performance.now() - startMs - roundTripMs, 0.1);
  return { bytesPerSecond: (bytes / elapsedMs) * 1000, roundTripMs };
}

async function sendAndWait(session: Session, padding: Uint8Array, signal?: AbortSignal): Promise<number> {
  const startMs = performance.now();
  await session.send(0, FrameType.padding, padding);
  await session.settled(TIMEOUT_MS, signal);
  return performance.now() - startMs;
}
