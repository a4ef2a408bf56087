import { join } from "node:path";
import type { Bench, Contender } from "./support/bench.ts";
import { output, program } from "./support/processes.ts";

const GiB = 2 ** 30;
const MEMORY_BYTES = 4 * GiB;
/** On tmpfs, so that no disk is measured. */
const FOLDER = "/dev/shm";

/** A 4 GiB machine into a file and back, against zstd on the same bytes. */
export const snapshot: Bench = {
  name: "snapshot",
  meaning: "4 GiB of guest memory to a snapshot and back, against zstd -1 -T2 and zstd -d; all in /dev/shm",
  // As much as one array can have.
  memoryBytes: MEMORY_BYTES - 1,
  async prepare(context) {
    const memory = join(FOLDER, `vhu-bench-${process.pid}.ram`);
    process.on("exit", () =>
      Bun.spawnSync(["rm", "-f", memory, `${memory}.vhu`, `${memory}.zst`, `${memory}.out`]),
    );
    context.say("snapshot: filling 4 GiB");
    await output({ words: [...program("fill-guest-memory"), memory, `${MEMORY_BYTES}`] });
    const goals = (atMost: number) => [{ of: "vhu", over: "zstd", atMost }];
    return [
      {
        title: "save 4 GiB",
        unit: "s",
        goals: goals(0.6),
        contenders: [
          zstd(["-q", "-f", "-1", "-T2", memory, "-o", `${memory}.zst`]),
          vhu(["save", memory, `${memory}.vhu`]),
        ],
      },
      {
        title: "load 4 GiB",
        unit: "s",
        goals: goals(0.5),
        contenders: [
          zstd(["-q", "-f", "-d", `${memory}.zst`, "-o", `${memory}.out`], `${memory}.out`),
          vhu(["load", memory, `${memory}.vhu`]),
        ],
      },
    ];
  },
};

function zstd(words: readonly string[], remove?: string): Contender {
  return {
    name: "zstd",
    run: async () => {
      const startMs = performance.now();
      await output({ words: ["zstd", ...words] });
      const seconds = (performance.now() - startMs) / 1000;
      if (remove !== undefined) Bun.spawnSync(["rm", "-f", remove]);
      return seconds;
    },
  };
}

/** The program says what the work took, without its own start; it is 20 ms. */
function vhu(words: readonly string[]): Contender {
  return {
    name: "vhu",
    run: async () => Number(await output({ words: [...program("snapshot-memory"), ...words] })),
  };
}
