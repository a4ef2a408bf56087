import { join } from "node:path";
import type { Bench } from "./support/bench.ts";
import { output, program, wallMs } from "./support/processes.ts";

const GiB = 2 ** 30;
const VHU = join(import.meta.dir, "../../bin/vhu.ts");

/** From the start of a command to its end, as a shell sees it. The processes are not pinned: a program may use all cores. */
export const commandStart: Bench = {
  name: "command-start",
  meaning: "wall time of short commands, spawned",
  memoryBytes: GiB,
  async prepare(context) {
    const file = join(context.folder, "memory.vhu");
    await output({ words: [...program("make-snapshot"), file, `${GiB}`] });
    const command = (name: string, words: readonly string[]) => ({ name, run: () => wallMs({ words }) });
    const vhu = (name: string, ...words: string[]) => command(name, [process.execPath, VHU, ...words]);
    const node = Bun.which("node");
    const contenders = [
      command("bun -e 0", [process.execPath, "-e", "0"]),
      ...(node === null ? [] : [command("node -e 0", [node, "-e", "0"])]),
      vhu("vhu --version", "--version"),
      vhu("vhu snapshot inspect", "snapshot", "inspect", file),
    ];
    const goals = [
      { of: "vhu --version", atMost: 60 },
      { of: "vhu snapshot inspect", atMost: 150 },
    ];
    return [{ title: "command start; the snapshot holds 1 GiB of memory", unit: "ms", contenders, goals }];
  },
};
