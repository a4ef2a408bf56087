import { join } from "node:path";
import type { Bench, BenchContext, Contender, Contest } from "./support/bench.ts";
import { output, outputBeside, program } from "./support/processes.ts";

const WARM_UP_SECONDS = 1;
const SECONDS = 1;
/** Both sides map 256 buffers of 68 KiB for each queue. */
const MEMORY_BYTES = 256 * 1024 * 1024;
const [DEVICE_CPU, DRIVER_CPU] = [0, 1];

interface Case {
  readonly title: string;
  readonly unit: string;
  readonly frameBytes: number;
  /** From frames in a second to the unit. */
  readonly scale: number;
  readonly atLeast: number;
}

const CASES: readonly Case[] = [
  { title: "net, frames of 64 bytes", unit: "Mpps", frameBytes: 64, scale: 1e-6, atLeast: 1.5 },
  { title: "net, TSO frames of 64 KiB", unit: "GB/s", frameBytes: 65_536, scale: 65_536e-9, atLeast: 10 },
];

/** Frames from our driver to our device and back, a core each; C does the same in two threads. */
export const net: Bench = {
  name: "net",
  meaning: "driver, network device with a loopback, driver: a core each",
  memoryBytes: MEMORY_BYTES,
  async prepare(context) {
    const compiled = context.compile("net-loop");
    return CASES.map((one) => contest(context, one, compiled));
  },
};

function contest(context: BenchContext, one: Case, compiled: string | undefined): Contest {
  const contenders = [vhu(context, one), ...(compiled === undefined ? [] : [c(compiled, one)])];
  return { title: one.title, unit: one.unit, contenders, goals: [{ of: "vhu", atLeast: one.atLeast }] };
}

function vhu({ folder }: BenchContext, { frameBytes, scale }: Case): Contender {
  const path = join(folder, "net.sock");
  const words = [...program("net-frontend"), path, `${frameBytes}`, `${WARM_UP_SECONDS}`, `${SECONDS}`];
  return {
    name: "vhu",
    async run() {
      const backend = { words: [...program("net-backend"), path], cpu: DEVICE_CPU };
      return Number(await outputBeside(backend, { words, cpu: DRIVER_CPU })) * scale;
    },
  };
}

function c(compiled: string, { frameBytes, scale }: Case): Contender {
  const words = [compiled, `${frameBytes}`, `${SECONDS}`, `${DEVICE_CPU}`, `${DRIVER_CPU}`];
  return { name: "C", run: async () => Number(await output({ words })) * scale };
}
