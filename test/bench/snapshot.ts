import { statSync } from "node:fs";
import { join } from "node:path";
import { PROGRAM } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import type { Bench, Contender, Contest } from "./support/bench.ts";
import { output, program, wallMs } from "./support/processes.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Less where the machine has less to spare: SNAPSHOT_BENCH_GIB. */
const MEMORY_BYTES = Number(process.env.SNAPSHOT_BENCH_GIB ?? 4) * GIB;
/** On tmpfs, so that no disk is measured. */
const FOLDER = "/dev/shm";
const SEED = "20261125";

/** A machine's memory into a file and back, against zstd on the same bytes; and what else a snapshot promises. */
export const snapshot: Bench = {
  name: "snapshot",
  meaning: `${MEMORY_BYTES / GIB} GiB of a guest's memory to a snapshot and back, against zstd, sha256sum and itself; all in ${FOLDER}`,
  memoryBytes: 2 * MEMORY_BYTES,
  async prepare({ say }) {
    const isThere = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]) !== undefined;
    if (!isThere || Bun.which("zstd") === null) {
      say("snapshot: left out, QEMU (test/peers/install.sh) or zstd (apt install zstd) is missing");
      return [];
    }
    const at = (suffix: string) => join(FOLDER, `vhu-bench-${process.pid}.${suffix}`);
    const files = {
      memory: at("ram"),
      twin: at("twin.ram"),
      twinFull: at("twin.vhu"),
      full: at("vhu"),
      base: at("base.vhu"),
      zstd: at("zst"),
      out: at("out"),
    };
    const more = {
      hashed: at("hashed.vhu"),
      logged: at("logged.vhu"),
      small: at("64m.vhu"),
      large: at("16g.vhu"),
    };
    process.on("exit", () => Bun.spawnSync(["rm", "-f", ...Object.values(files), ...Object.values(more)]));
    say(`snapshot: recording a guest, ${MEMORY_BYTES / GIB} GiB`);
    await output({ words: [...program("record-guest-memory"), files.memory, `${MEMORY_BYTES}`, files.twin] });
    await memoryProgram("track", files.memory, files.base);
    await memoryProgram("repeat", files.memory, more.small, `${64 * MIB}`);
    await memoryProgram("repeat", files.memory, more.large, `${16 * GIB}`);
    await memoryProgram("change", files.memory, SEED);
    return [...againstZstd(files), ...incremental({ ...files, ...more }), ...looking({ ...files, ...more })];
  },
};

/** What a busy machine disturbs less than the time. */
const PROCESSOR = [{ unit: "s of processor", goals: [] }];

type Files = Readonly<Record<string, string>>;

function againstZstd({ memory, twin, twinFull, full, zstd, out }: Files): Contest[] {
  const goals = (atMost: number) => [{ of: "vhu", over: "zstd", atMost }];
  return [
    {
      title: "save",
      unit: "s",
      goals: goals(0.6),
      also: PROCESSOR,
      contenders: [
        zstdRun(["-q", "-f", "-1", "-T2", memory!, "-o", zstd!], zstd!),
        vhu("vhu", "save", memory!, full!),
      ],
    },
    {
      title: "its size",
      unit: "MiB",
      goals: goals(1),
      contenders: [sizeOf("zstd", zstd!), sizeOf("vhu", full!)],
    },
    {
      title: "save where every second page of the copies is a duplicate",
      unit: "s",
      goals: goals(0.6),
      also: [...PROCESSOR, { unit: "MiB", goals: goals(1) }],
      contenders: [
        withSize(zstdRun(["-q", "-f", "-1", "-T2", twin!, "-o", out!], out!), out!),
        withSize(vhu("vhu", "save", twin!, twinFull!), twinFull!),
      ],
    },
    {
      title: "load",
      unit: "s",
      goals: goals(0.5),
      also: PROCESSOR,
      contenders: [zstdRun(["-q", "-f", "-d", zstd!, "-o", out!], out!), vhu("vhu", "load", memory!, full!)],
    },
    {
      title: "memory beside the guest's",
      unit: "MiB",
      goals: ["save", "load"].map((of) => ({ of, atMost: 256 })),
      contenders: ["save", "load"].map((verb) => vhu(verb, verb, memory!, full!, "--beside")),
    },
  ];
}

function incremental({ memory, full, base, hashed, logged }: Files): Contest[] {
  const goals = (byLog: number, byHash: number) => [
    { of: "dirty log", over: "full", atMost: byLog },
    { of: "hashes", over: "full", atMost: byHash },
  ];
  return [
    {
      title: "save after 1 % of the pages changed",
      unit: "s",
      goals: goals(0.15, 0.4),
      also: PROCESSOR,
      contenders: [
        vhu("full", "save", memory!, full!),
        vhu("dirty log", "save", memory!, logged!, base!, SEED),
        vhu("hashes", "save", memory!, hashed!, base!),
      ],
    },
    {
      title: "its size",
      unit: "MiB",
      goals: goals(0.03, 0.03),
      contenders: [sizeOf("full", full!), sizeOf("dirty log", logged!), sizeOf("hashes", hashed!)],
    },
  ];
}

function looking({ full, small, large }: Files): Contest[] {
  const inspect = (name: string, file: string): Contender => ({
    name,
    run: () => wallMs({ words: [...PROGRAM, "snapshot", "inspect", file] }),
  });
  return [
    {
      title: "vhu snapshot inspect",
      unit: "ms",
      goals: [
        { of: "16 GiB", over: "64 MiB", atMost: 1.2 },
        { of: "16 GiB", atMost: 150 },
      ],
      contenders: [inspect("64 MiB", small!), inspect("16 GiB", large!)],
    },
    {
      title: "vhu snapshot verify",
      unit: "ms",
      goals: [{ of: "vhu", over: "sha256sum", atMost: 0.5 }],
      contenders: [
        { name: "sha256sum", run: () => wallMs({ words: ["sha256sum", full!] }) },
        { name: "vhu", run: () => wallMs({ words: [...PROGRAM, "snapshot", "verify", full!] }) },
      ],
    },
  ];
}

/** A new file each time: to write over an old one costs tmpfs less. */
function zstdRun(words: readonly string[], target: string): Contender {
  return {
    name: "zstd",
    run: async () => {
      Bun.spawnSync(["rm", "-f", target]);
      const startMs = performance.now();
      const child = Bun.spawn(["zstd", ...words]);
      if ((await child.exited) !== 0) throw new Error(`zstd ${words.join(" ")} failed`);
      const { user, system } = child.resourceUsage()!.cpuTime;
      return [(performance.now() - startMs) / 1000, Number(user + system) / 1e6];
    },
  };
}

function memoryProgram(...words: string[]): Promise<string> {
  return output({ words: [...program("snapshot-memory"), ...words] });
}

/** The program says what the work took, without its own start; it is 20 ms. */
function vhu(name: string, ...words: string[]): Contender {
  return { name, run: async () => (await memoryProgram(...words)).trim().split(" ").map(Number) };
}

function withSize({ name, run }: Contender, file: string): Contender {
  return { name, run: async () => [...[await run()].flat(), statSync(file).size / MIB] };
}

function sizeOf(name: string, file: string): Contender {
  return { name, run: () => Promise.resolve(statSync(file).size / MIB) };
}
