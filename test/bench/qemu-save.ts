import { mkdtempSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import type { Bench, Contender } from "./support/bench.ts";
import { BenchGuest, qemuSave, vhuWords } from "./support/bench-guest.ts";
import { output } from "./support/processes.ts";

/** A QEMU VM that stands still into a file, by vhu and by QEMU itself through zstd. */
export const qemuSaving: Bench = {
  name: "qemu-save",
  meaning: "a stopped 2 GiB guest with 1 GiB of data into a file: vhu against migrate exec:zstd -1 -T2",
  memoryBytes: 4 * 2 ** 30 - 1,
  async prepare({ say }) {
    const isThere = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]) !== undefined;
    if (!isThere || Bun.which("zstd") === null) {
      say("qemu-save: left out, QEMU (test/peers/install.sh) or zstd (apt install zstd) is missing");
      return [];
    }
    // On tmpfs, so that no disk is measured.
    const folder = mkdtempSync("/dev/shm/vhu-bench-");
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    process.env.XDG_STATE_HOME = join(folder, "state");
    say("qemu-save: filling a guest");
    const guest = await BenchGuest.make(folder);
    const { qmpPath } = await guest.boot("vm");
    const [vhuFile, zstdFile] = [join(folder, "vm.vhu"), join(folder, "vm.zst")];
    const vhu = timed("vhu", vhuFile, () =>
      output({ words: vhuWords("migrate", "save", `qmp:${qmpPath}`, vhuFile) }),
    );
    const zstd = timed("zstd", zstdFile, () =>
      qemuSave(qmpPath, `exec:zstd -q -f -1 -T2 > ${zstdFile}`, { mappedRam: false }),
    );
    return [
      {
        title: "save a stopped QEMU VM of 2 GiB, 1 GiB of it data",
        unit: "s",
        goals: [{ of: "vhu", over: "zstd", atMost: 0.7 }],
        contenders: [vhu, zstd],
      },
      {
        title: "the size of the file",
        unit: "MiB",
        goals: [{ of: "vhu", over: "zstd", atMost: 0.9 }],
        contenders: [sizeOf("vhu", vhuFile), sizeOf("zstd", zstdFile)],
      },
    ];
  },
};

function timed(name: string, file: string, save: () => Promise<unknown>): Contender {
  return {
    name,
    run: async () => {
      rmSync(file, { force: true });
      const startMs = performance.now();
      await save();
      return (performance.now() - startMs) / 1000;
    },
  };
}

function sizeOf(name: string, file: string): Contender {
  return { name, run: () => Promise.resolve(statSync(file).size / 2 ** 20) };
}
