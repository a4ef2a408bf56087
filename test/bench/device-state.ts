import { join } from "node:path";
import { STATE_CHUNK_BYTES } from "../../src/limits.ts";
import type { Bench, BenchContext, Contender } from "./support/bench.ts";
import { output, outputBeside, program } from "./support/processes.ts";

const GiB = 2 ** 30;
const STATE_BYTES = GiB;

/** A device state of 1 GiB out of one process, through a pipe, into another. */
export const deviceState: Bench = {
  name: "device-state",
  meaning: "DEVICE_STATE of 1 GiB of incompressible bytes: device, pump, pipe, saveDeviceState, /dev/null",
  memoryBytes: 2 * STATE_BYTES,
  async prepare(context) {
    const compiled = context.compile("pipe-copy");
    return [
      contest(context, compiled, "a core for each process", [0, 1]),
      contest(context, compiled, "both on one core", [0, 0]),
    ];
  },
};

function contest(
  context: BenchContext,
  compiled: string | undefined,
  where: string,
  cpus: readonly [number, number],
) {
  const contenders: Contender[] = [{ name: "vhu", run: () => viaVhu(context, cpus) }];
  if (compiled !== undefined) {
    contenders.unshift({ name: "C", run: () => viaPipe(compiled, cpus, "plain") });
    contenders.push({ name: "C, huge pages", run: () => viaPipe(compiled, cpus, "huge") });
  }
  const goals = [{ of: "vhu", over: "C", atLeast: 0.8 }];
  return { title: `device state of 1 GiB, ${where}`, unit: "GB/s", contenders, goals };
}

async function viaVhu(
  context: BenchContext,
  [writerCpu, readerCpu]: readonly [number, number],
): Promise<number> {
  const path = join(context.folder, "device-state.sock");
  await Bun.file(path)
    .unlink()
    .catch(() => {});
  const backend = { words: [...program("state-backend"), path, `${STATE_BYTES}`], cpu: writerCpu };
  const frontend = { words: [...program("state-frontend"), path, `${STATE_BYTES}`], cpu: readerCpu };
  return STATE_BYTES / Number(await outputBeside(backend, frontend));
}

async function viaPipe(
  compiled: string,
  [writerCpu, readerCpu]: readonly [number, number],
  pages: "plain" | "huge",
): Promise<number> {
  const words = [compiled, STATE_BYTES, STATE_CHUNK_BYTES, writerCpu, readerCpu, pages].map(String);
  return STATE_BYTES / Number(await output({ words }));
}
