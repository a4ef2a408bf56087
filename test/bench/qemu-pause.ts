import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import type { Bench, Contender } from "./support/bench.ts";
import { BenchGuest, qemuSave, run, vhuWords } from "./support/bench-guest.ts";
import { PauseWatch } from "./support/pause-watch.ts";

/** For how long a VM stands still while it is saved live: vhu, and QEMU's own `migrate file:`, continued at once. */
export const qemuPause: Bench = {
  name: "qemu-pause",
  meaning:
    "a live save of a 2 GiB guest with 1 GiB of data: for how long it stands still, vhu and QEMU's migrate file:",
  memoryBytes: 4 * 2 ** 30 - 1,
  async prepare({ say }) {
    if (requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]) === undefined) {
      say("qemu-pause: left out, QEMU is missing (test/peers/install.sh)");
      return [];
    }
    const folder = mkdtempSync("/dev/shm/vhu-bench-");
    process.env.XDG_STATE_HOME = join(folder, "state");
    say("qemu-pause: filling a guest");
    const guest = await BenchGuest.make(folder);
    const second = join(folder, "second.qmp");
    const source = await guest.boot("vm", ["-qmp", `unix:${second},server=on,wait=off`]);
    process.on("exit", () => {
      source.process.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true });
    });
    const contender = (name: string, save: () => Promise<void>): Contender => ({
      name,
      run: async () => {
        using watch = await PauseWatch.connect(second);
        await save();
        while (watch.pausesMs.length === 0) await Bun.sleep(10);
        return watch.pausesMs[0]!;
      },
    });
    const file = join(folder, "vm.vhu");
    return [
      {
        title: "pause of a QEMU VM in a live save",
        unit: "ms",
        goals: [{ of: "vhu", over: "migrate file:", atMost: 1.2 }],
        contenders: [
          contender("vhu", () => run(vhuWords("migrate", "save", "--live", `qmp:${source.qmpPath}`, file))),
          contender("migrate file:", () =>
            qemuSave(source.qmpPath, `file:${join(folder, "vm.stream")}`, { isLive: true }),
          ),
        ],
      },
    ];
  },
};
