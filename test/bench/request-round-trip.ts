import { join } from "node:path";
import type { Bench, BenchContext, Contender, Goal } from "./support/bench.ts";
import { outputBeside, program } from "./support/processes.ts";

/** Enough for every function on the way to be compiled by the last tier of the JIT. */
const WARM_UP = 20_000;
const COUNT = 50_000;
const MEMORY_BYTES = 256 * 1024 * 1024;

interface Sides {
  readonly name: string;
  readonly frontend: readonly string[];
  readonly backend: readonly string[];
  /** How the front-end waits for its answer: round-trip-frontend.ts. */
  readonly wait?: "in-line" | "loop";
}

/** GET_FEATURES and its answer, between two processes. */
export const requestRoundTrip: Bench = {
  name: "request-round-trip",
  meaning: "GET_FEATURES and its answer: BackendClient, UNIX socket, BackendSession",
  memoryBytes: MEMORY_BYTES,
  async prepare(context) {
    const vhu = { frontend: program("round-trip-frontend"), backend: program("round-trip-backend") };
    const sides: Sides[] = [
      { name: "vhu", ...vhu },
      { name: "vhu, with a back-end channel", ...vhu, wait: "loop" },
    ];
    const compiled = context.compile("round-trip");
    if (compiled !== undefined) {
      const c = { frontend: [compiled, "frontend"], backend: [compiled, "backend"] };
      sides.unshift({ name: "C", ...c });
      sides.push({ name: "vhu front-end, C back-end", ...vhu, backend: c.backend });
      sides.push({ name: "C front-end, vhu back-end", ...vhu, frontend: c.frontend });
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
  goals: readonly Goal[],
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
      const frontend = {
        words: [...sides.frontend, path, `${WARM_UP}`, `${COUNT}`, sides.wait ?? "in-line"],
        cpu: frontendCpu,
      };
      return Number(await outputBeside(backend, frontend)) / 1000;
    },
  };
}
