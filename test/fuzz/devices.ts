/**
 * Fuzz target of the devices: chains of any shape and content in any of their queues, as a hostile driver gives them. A device may
 * answer with an error or have its queue taken out of service; it must not throw anything else, must not say that it wrote more
 * than there was room for, and must serve the next driver.
 *
 * `bun test/fuzz/devices.ts [SEED [CHAINS]]` runs it on its own. What it begins its chains with is in corpus/devices.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlkDevice, DiskImage } from "../../devices/blk/mod.ts";
import { BufferEnd, ConsoleDevice } from "../../devices/console/mod.ts";
import { LoopbackEnd, NetDevice } from "../../devices/net/mod.ts";
import { RngDevice } from "../../devices/rng/mod.ts";
import type { VhostUserDevice } from "../../src/backend/mod.ts";
import { VhuError } from "../../src/errors.ts";
import { EventLoop } from "../../src/sys/mod.ts";
import { loadDevice, saveDevice } from "../support/device-state.ts";
import { DrivenMemory, DrivenQueue, type Piece } from "../support/driven-queue.ts";
import { mutate, randomNumbers } from "./mutate.ts";

const CORPUS = join(import.meta.dir, "corpus", "devices");
const DISK_BYTES = 1 << 20;
const MAX_PIECES = 6;
/** A driver gives up its memory after so many chains, and another one comes. */
const CHAINS_PER_DRIVER = 200;
const TYPES = ["blk", "net", "console", "rng"] as const;

type Random = (limit: number) => number;
interface Subject extends Disposable {
  readonly device: VhostUserDevice;
  readonly loop: EventLoop;
}

/** Beginnings of what drivers send, by file name: a block request's header, a control message, a frame. */
export function deviceCorpus(): Uint8Array[] {
  return readdirSync(CORPUS)
    .sort()
    .map((name) => new Uint8Array(readFileSync(join(CORPUS, name))));
}

function makeDevice(type: (typeof TYPES)[number], disk: string): Subject {
  const stack = new DisposableStack();
  const loop = stack.use(new EventLoop());
  const make = (): VhostUserDevice => {
    if (type === "blk") return stack.use(new BlkDevice(DiskImage.open(disk), { lock: false }));
    if (type === "net") return stack.use(new NetDevice(new LoopbackEnd(loop, 2), loop, { mac: MAC }));
    if (type === "rng") return new RngDevice(loop, { rateLimit: { bytes: 4096, periodMs: 1 } });
    return stack.use(new ConsoleDevice([0, 1, 2].map((id) => ({ end: new BufferEnd(), name: `p${id}` }))));
  };
  const device = make();
  device.ackFeatures(device.features);
  return { device, loop, [Symbol.dispose]: () => stack.dispose() };
}

const MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 2);

function randomPiece(random: Random, corpus: readonly Uint8Array[]): Piece {
  if (random(5) < 2) return { room: 1 + random(random(4) === 0 ? 70_000 : 40) };
  const seed = corpus[random(corpus.length)]!;
  const bytes = random(3) === 0 ? seed : mutate(seed, corpus[random(corpus.length)]!, random);
  return { out: bytes.length === 0 ? Uint8Array.of(random(256)) : bytes };
}

/** As a driver has to: what the device writes comes last. */
function randomChain(random: Random, corpus: readonly Uint8Array[]): Piece[] {
  const pieces = Array.from({ length: 1 + random(MAX_PIECES) }, () => randomPiece(random, corpus));
  return [...pieces.filter((piece) => "out" in piece), ...pieces.filter((piece) => "room" in piece)];
}

/** One driver's life. Returns what happened to its queues. */
function drive(subject: Subject, random: Random, corpus: readonly Uint8Array[], packed: boolean): number {
  const { device, loop } = subject;
  using memory = new DrivenMemory(64 << 20);
  using queues = new DisposableStack();
  const all = Array.from({ length: device.maxQueues }, (_, index) =>
    queues.use(new DrivenQueue(memory, device, index, { packed, size: 64 })),
  );
  let refused = 0;
  for (let chain = 0; chain < CHAINS_PER_DRIVER; chain++) {
    const queue = all[random(all.length)]!;
    queue.add(randomChain(random, corpus));
    try {
      queue.kick();
      if (random(8) === 0) loop.runOnce(0);
    } catch (error) {
      if (!(error instanceof VhuError)) throw error;
      // Its queue is out of service; the others go on.
      refused++;
      all.splice(all.indexOf(queue), 1);
      if (all.length === 0) break;
      continue;
    }
    for (let used = queue.take(); used !== undefined; used = queue.take()) {
      if (used.writtenBytes > used.written.length)
        throw new Error(
          `${device.deviceType} says it wrote ${used.writtenBytes} of ${used.written.length} bytes`,
        );
    }
  }
  return refused;
}

/** How many chains took a queue out of service, by device. */
export function fuzzDevices(seed: number, chains: number): ReadonlyMap<string, number> {
  const random = randomNumbers(seed);
  const corpus = deviceCorpus();
  const dir = mkdtempSync(join(tmpdir(), "vhu-fuzz-"));
  const refused = new Map<string, number>();
  try {
    const disk = join(dir, "disk");
    writeFileSync(disk, "");
    truncateSync(disk, DISK_BYTES);
    for (let driver = 0; driver * CHAINS_PER_DRIVER < chains; driver++) {
      const type = TYPES[driver % TYPES.length]!;
      using subject = makeDevice(type, disk);
      const packed = random(2) === 1;
      const count = drive(subject, random, corpus, packed);
      refused.set(type, (refused.get(type) ?? 0) + count);
      subject.device.enterSuspendedState?.();
      // Whatever the driver did, the state is one that a device takes.
      const state = saveDevice(subject.device);
      using other = makeDevice(type, disk);
      loadDevice(other.device, state);
      subject.device.reset();
      subject.device.ackFeatures(subject.device.features);
      drive(subject, random, corpus, packed);
    }
    return refused;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  const [seed = "20261125", chains = "10000"] = process.argv.slice(2);
  console.log(fuzzDevices(Number(seed), Number(chains)));
}
