import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import type { Bench, Contender } from "./support/bench.ts";
import {
  BenchGuest,
  capabilitiesOf,
  command,
  MEMORY_MIB,
  parametersOf,
  type QemuFileOptions,
  qemuSave,
  run,
  vhuWords,
} from "./support/bench-guest.ts";

const NAME = "vm";
const MAPPED: QemuFileOptions = { mappedRam: true };
const SEQUENTIAL: QemuFileOptions = {};

/** A QEMU VM back from a file: from the first process until its guest counts on. */
export const qemuLoad: Bench = {
  name: "qemu-load",
  meaning:
    "a 2 GiB guest with 1 GiB of data, until it counts on: vhu, QEMU's mapped-ram with multifd, its plain stream",
  memoryBytes: 4 * 2 ** 30 - 1,
  async prepare({ say }) {
    if (requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]) === undefined) {
      say("qemu-load: left out, QEMU is missing (test/peers/install.sh)");
      return [];
    }
    // On tmpfs, so that no disk is measured.
    const folder = mkdtempSync("/dev/shm/vhu-bench-");
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    process.env.XDG_STATE_HOME = join(folder, "state");
    say("qemu-load: filling a guest, saving it in three ways");
    const guest = await BenchGuest.make(folder);
    const files = await save(guest);
    return [
      {
        title: "load a QEMU VM of 2 GiB, 1 GiB of it data, until it counts",
        unit: "s",
        goals: [{ of: "vhu", over: "mapped-ram + multifd", atMost: 1.0 }],
        contenders: [
          vhu(guest, files.vhu),
          qemu(guest, "mapped-ram + multifd", files.mapped, MAPPED),
          qemu(
            guest,
            "the same, anonymous memory",
            files.mapped,
            MAPPED,
            `memory-backend-ram,id=mem,size=${MEMORY_MIB}M`,
          ),
          qemu(guest, "sequential", files.sequential, SEQUENTIAL),
          vhuIntoWaiting(guest, files.vhu),
        ],
      },
    ];
  },
};

async function save(guest: BenchGuest) {
  const at = (name: string) => join(guest.folder, name);
  const files = { vhu: at("vm.vhu"), mapped: at("vm.mapped"), sequential: at("vm.sequential") };
  await using source = await guest.boot(NAME);
  await run(vhuWords("migrate", "save", `qmp:${source.qmpPath}`, files.vhu));
  await qemuSave(source.qmpPath, `file:${files.mapped}`, MAPPED);
  await qemuSave(source.qmpPath, `file:${files.sequential}`, SEQUENTIAL);
  return files;
}

function vhu(guest: BenchGuest, file: string): Contender {
  return {
    name: "vhu",
    run: async () => {
      guest.forget(NAME);
      const startMs = performance.now();
      const child = Bun.spawn(vhuWords("migrate", "load", "--json", file), {
        stdout: "pipe",
        stderr: "inherit",
      });
      await guest.counts(NAME);
      const seconds = (performance.now() - startMs) / 1000;
      const lines = (await child.stdout.text()).trim().split("\n");
      process.kill(JSON.parse(lines.at(-1)!).pid, "SIGKILL");
      return seconds;
    },
  };
}

function qemu(
  guest: BenchGuest,
  name: string,
  file: string,
  options: QemuFileOptions,
  memoryObject?: string,
): Contender {
  return {
    name,
    run: async () => {
      guest.forget("q");
      const startMs = performance.now();
      await using target = await guest.start("q", ["-incoming", "defer"], memoryObject);
      await command(
        target.qmpPath,
        ["migrate-set-capabilities", { capabilities: capabilitiesOf(options) }],
        ["migrate-set-parameters", parametersOf(options)],
        ["migrate-incoming", { uri: `file:${file}` }],
      );
      await guest.counts("q");
      return (performance.now() - startMs) / 1000;
    },
  };
}

function vhuIntoWaiting(guest: BenchGuest, file: string): Contender {
  return {
    name: "vhu, sequential",
    run: async () => {
      guest.forget("q");
      const startMs = performance.now();
      await using target = await guest.start("q", ["-incoming", "defer"]);
      await run(vhuWords("migrate", "load", file, `qmp:${target.qmpPath}`));
      await guest.counts("q");
      return (performance.now() - startMs) / 1000;
    },
  };
}
