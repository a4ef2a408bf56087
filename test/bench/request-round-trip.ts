import { join } from "node:path";
import type { Bench, BenchContext, Contender } from "./support/bench.ts";
import { outputBeside, program } from "./support/processes.ts";

/** Enough for every function on the way to be compiled by the last tier of the JIT. */
const WARM_UP = 30_000;
const COUNT = 100_000;
const MEMORY_BYTES = 256 * 1024 * 1024;

interface Sides {
  readonly name: string;
  readonly frontend: readonly string[];
  readonly backend: readonly string[];
}

/** GET_FEATURES and its answer, between two processes. */
export const requestRoundTrip: Bench = {
  name: "request-round-trip",
  meaning: "GET_FEATURES and its answer: BackendClient, UNIX socket, BackendSession",
  memoryBytes: MEMORY_BYTES,
  async prepare(context) {
    const ours = { frontend: program("round-trip-frontend"), backend: program("round-trip-backend") };
    const compiled = context.compile("round-trip");
    const sides: Sides[] = [{ name: "vhu", ...ours }];
    if (compiled !== undefined) {
      const [frontend, backend] = [
        [compiled, "frontend"],
        [compiled, "backend"],
      ];
      sides.unshift({ name: "C", frontend, backend });
      sides.push({ name: "vhu front-end, C back-end", frontend: ours.frontend, backend });
      sides.push({ name: "C front-end, vhu back-end", frontend, backend: ours.backend });
    }
    return [
      contest(context, "both processes on one core", sides, [0, 0], [{ of: "vhu", over: "C", atMost: 2 }]),
      contest(context, "a core for each", sides, [0, 1], []),
    ];
  },
};

function contest(
  context: BenchContext,
  where: string,
  sides: readonly Sides[],
  cpus: readonly [number, number],
  goals: { of: string; over: string; atMost: number }[],
) {
  const contenders = sides.map((one) => contender(context, one, cpus));
  return { title: `request round trip, ${where}`, unit: "us", contenders, goals };
}

function contender(
  context: BenchContext,
  sides: Sides,
  [backendCpu, frontendCpu]: readonly [number, number],
): Contender {
  const path = join(context.folder, "round-trip.sock");
  return {
    name: sides.name,
    async run() {
      await Bun.file(path)
        .unlink()
        .catch(() => {});
      const backend = { words: [...sides.backend, path], cpu: backendCpu };
      const frontend = { words: [...sides.frontend, path, `${WARM_UP}`, `${COUNT}`], cpu: frontendCpu };
      return Number(await outputBeside(backend, frontend)) / 1000;
    },
  };
}
