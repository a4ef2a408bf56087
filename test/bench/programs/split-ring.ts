/**
 * What one chain of 3 descriptors costs on the device's side of a ring: pop + complete + publish.
 * Run: bun test/bench/programs/split-ring.ts [--json] [--only=NAME]. The aim is less than 100 ns for a split ring.
 */
import { GuestMemory } from "../../../src/memory/mod.ts";
import { createMemfd } from "../../../src/sys/mod.ts";
import {
  Chain,
  createDeviceRing,
  createDriverRing,
  INITIAL_PACKED_BASE,
  indirectAreaBytes,
  type RingLayout,
} from "../../../src/vring/mod.ts";

const SIZE = 256;
const BATCH = 64;
const ROUNDS = 10_000;
const WARM_UP_ROUNDS = 3_000;
const MEMORY_BYTES = 16 * 1024 * 1024;
const TABLES = 0x100000;

const PIECES = [
  { guestAddress: 0x200000, sizeBytes: 16, writable: false },
  { guestAddress: 0x201000, sizeBytes: 4096, writable: true },
  { guestAddress: 0x202000, sizeBytes: 1, writable: true },
];

interface Figures {
  readonly name: string;
  readonly popNs: number;
  readonly completeNs: number;
  readonly publishNs: number;
  /** One chain at a time, each published by itself: the three together. */
  readonly singleNs: number;
}

function measure(name: string, options: Pick<RingLayout, "packed" | "eventIdx" | "indirect">): Figures {
  using memory = new GuestMemory();
  const region = { guestAddress: 0, sizeBytes: MEMORY_BYTES, userAddress: 0x7f0000000000, mmapOffset: 0 };
  memory.addRegion(region, createMemfd("bench", MEMORY_BYTES));
  const base = options.packed ? INITIAL_PACKED_BASE : 0;
  const layout = { size: SIZE, descriptor: 0x1000, available: 0x4000, used: 0x6000, base, ...options };
  if (TABLES + indirectAreaBytes(SIZE, 4) > MEMORY_BYTES) throw new Error("the tables do not fit");
  using driver = createDriverRing<number>(memory, layout, {
    indirectArea: { guestAddress: TABLES, maxPieces: 4 },
  });
  using device = createDeviceRing(memory, memory, layout);
  const chains = Array.from({ length: BATCH }, () => new Chain());
  const total = { pop: 0, complete: 0, publish: 0, single: 0 };
  let checksum = 0;

  const offer = () => {
    for (let i = 0; i < BATCH; i++) if (!driver.add(PIECES, i)) throw new Error("the ring is full");
  };
  const collect = () => {
    for (let i = 0; i < BATCH; i++) checksum += driver.popUsed()!.writtenBytes;
  };
  for (let round = 0; round < WARM_UP_ROUNDS + ROUNDS; round++) {
    offer();
    const t0 = Bun.nanoseconds();
    for (let i = 0; i < BATCH; i++) device.pop(chains[i]!);
    const t1 = Bun.nanoseconds();
    for (let i = 0; i < BATCH; i++) device.complete(chains[i]!, 4097);
    const t2 = Bun.nanoseconds();
    device.publish();
    const t3 = Bun.nanoseconds();
    collect();
    offer();
    const chain = chains[0]!;
    const t4 = Bun.nanoseconds();
    while (device.pop(chain)) {
      device.complete(chain, 4097);
      device.publish();
    }
    const t5 = Bun.nanoseconds();
    collect();
    if (round < WARM_UP_ROUNDS) continue;
    total.pop += t1 - t0;
    total.complete += t2 - t1;
    total.publish += t3 - t2;
    total.single += t5 - t4;
  }
  if (checksum !== 2 * BATCH * 4097 * (WARM_UP_ROUNDS + ROUNDS)) throw new Error("chains were lost");
  const perChain = (sum: number) => Math.round((sum / ROUNDS / BATCH) * 10) / 10;
  return {
    name,
    popNs: perChain(total.pop),
    completeNs: perChain(total.complete),
    publishNs: perChain(total.publish),
    singleNs: perChain(total.single),
  };
}

const only = process.argv.find((argument) => argument.startsWith("--only="))?.slice("--only=".length);
const cases: [string, Pick<RingLayout, "packed" | "eventIdx" | "indirect">][] = [
  ["split", { packed: false, eventIdx: false, indirect: false }],
  ["split, EVENT_IDX", { packed: false, eventIdx: true, indirect: false }],
  ["split, indirect", { packed: false, eventIdx: false, indirect: true }],
  ["packed", { packed: true, eventIdx: false, indirect: false }],
  ["packed, EVENT_IDX", { packed: true, eventIdx: true, indirect: false }],
];
const figures = cases.filter(([name]) => only === undefined || name === only).map((one) => measure(...one));
if (process.argv.includes("--json")) console.log(JSON.stringify(figures));
else console.table(figures);
