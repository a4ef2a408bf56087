import type { Bench, Contender } from "./support/bench.ts";
import { output, program } from "./support/processes.ts";

const MEMORY_BYTES = 256 * 1024 * 1024;

interface Figures {
  readonly name: string;
  readonly popNs: number;
  readonly completeNs: number;
  readonly publishNs: number;
  readonly singleNs: number;
}

const KINDS = ["split", "split, EVENT_IDX", "split, indirect", "packed", "packed, EVENT_IDX"];

/** A chain of 3 descriptors through a ring, on the device's side: popped and completed in batches of 64, and one by one. */
export const splitRing: Bench = {
  name: "split-ring",
  meaning: "a chain of 3 descriptors through a ring, device side: pop, complete, publish",
  memoryBytes: MEMORY_BYTES,
  async prepare() {
    const goals = [{ of: "split", atMost: 100 }];
    return [
      {
        title: "ring, 64 chains per batch",
        unit: "ns per chain",
        contenders: KINDS.map((kind) => ring(kind, batched)),
        goals,
      },
      {
        title: "ring, each chain by itself",
        unit: "ns per chain",
        contenders: KINDS.map((kind) => ring(kind, single)),
        goals,
      },
    ];
  },
};

const batched = (figures: Figures) => figures.popNs + figures.completeNs + figures.publishNs;
const single = (figures: Figures) => figures.singleNs;

function ring(kind: string, value: (figures: Figures) => number): Contender {
  return {
    name: kind,
    async run() {
      const text = await output({ words: [...program("split-ring"), "--json", `--only=${kind}`], cpu: 0 });
      const [figures] = JSON.parse(text) as [Figures];
      return value(figures);
    },
  };
}
