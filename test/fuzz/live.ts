/**
 * Fuzz target of a live migration's parsers: damaged frames, messages, windows of memory, parts of disks and pieces of states,
 * with and without their checksums mended.
 *
 * `bun test/fuzz/live.ts [SEED [ITERATIONS]]` runs it on its own; what it finds goes into corpus/live.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decodeDiskChunk } from "../../migrate/live/disk-chunk.ts";
import { FrameDecoder, FrameType } from "../../migrate/live/frame.ts";
import { decodeWindow } from "../../migrate/live/memory-window.ts";
import {
  decodeMessage,
  greeting,
  hello,
  liveMessage,
  refused,
  welcome,
} from "../../migrate/live/messages.ts";
import { ReliableStream } from "../../migrate/live/reliable-stream.ts";
import { decodeStatePiece } from "../../migrate/live/state-frame.ts";
import { FormatError } from "../../src/errors.ts";
import { MAX_LIVE_FRAME_BYTES } from "../../src/limits.ts";
import { xxh3 } from "../../src/state/mod.ts";
import { countOutcomes, fuzzFromShell } from "./count-outcomes.ts";

const CORPUS = join(import.meta.dir, "corpus", "live");
const HEAD_BYTES = 16;
const SCHEMAS = {
  [FrameType.greeting]: greeting,
  [FrameType.hello]: hello,
  [FrameType.welcome]: welcome,
  [FrameType.refused]: refused,
};

export function liveCorpus(): [string, Uint8Array][] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => [name, new Uint8Array(readFileSync(join(CORPUS, name)))]);
}

/** What became of the bytes of a connection: "accepted", or what refused them. Throws where a promise is broken. */
export function runLive(bytes: Uint8Array, pieceBytes: number): string {
  const decoder = new FrameDecoder();
  const streams = Array.from({ length: 9 }, (_, number) => new ReliableStream(number));
  try {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      for (const frame of decoder.push(bytes.subarray(at, at + pieceBytes))) {
        if (frame.payload.length > MAX_LIVE_FRAME_BYTES)
          throw new Error("a frame over the limit was handed out");
        const schema = SCHEMAS[frame.type as keyof typeof SCHEMAS];
        if (schema !== undefined) decodeMessage<unknown>(schema, frame.payload, "message");
        else if (frame.type === FrameType.applied) streams[frame.stream]!.acknowledge(frame.sequence);
        else if (frame.sequence > 0 && streams[frame.stream]!.receive(frame))
          readNumbered(frame.type, frame.payload);
      }
    }
    return decoder.isWithinFrame ? "cut off" : "accepted";
  } catch (error) {
    if (error instanceof FormatError && error.section !== "")
      return `refused in ${error.section.replaceAll(/\d+/g, "N")}`;
    throw error;
  }
}

function readNumbered(type: number, payload: Uint8Array): void {
  if (type === FrameType.message) decodeMessage(liveMessage, payload, "message");
  else if (type === FrameType.memory) decodeWindow(payload);
  else if (type === FrameType.state) decodeStatePiece(payload);
  else if (type === FrameType.disk) decodeDiskChunk(payload);
}

/** Mends the checksum of each frame, as far as they can be walked. */
export function resealLive(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + HEAD_BYTES + 8 <= bytes.length; ) {
    const end = at + HEAD_BYTES + view.getUint32(at + 4, true);
    if (end + 8 > bytes.length) return;
    view.setBigUint64(end, xxh3(bytes.subarray(at, end)), true);
    at = end + 8;
  }
}

/** How often each outcome was seen. */
export function fuzzLive(seed: number, iterations: number): Map<string, number> {
  return countOutcomes(liveCorpus(), seed, iterations, (bytes, random) => {
    const isMended = random(3) > 0;
    if (isMended) resealLive(bytes);
    return runLive(bytes, 1 + random(4096));
  });
}

if (import.meta.main) await fuzzFromShell(fuzzLive);
