import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { randomNumbers } from "../fuzz/mutate.ts";
import type { RunningQemu } from "../peers/mod.ts";
import { requireWhole } from "./kill-operations.ts";
import { KillWatch } from "./kill-watch.ts";
import { BOOT_TIMEOUT_MS, livingGuest, runState, startListening, waitForBeats } from "./living-guest.ts";
import { startVhu, type VhuProcess } from "./vhu-process.ts";

/** From the first entry in the log. */
const MAX_DELAY_MS = { save: 600, load: 1_000 } as const;
const MEMORY_MIB = 128;
const IMAGE_BYTES = 16 << 20;
const VICTIMS = ["vhu", "QEMU", "daemon"] as const;

export interface QemuKills {
  readonly saves: number;
  readonly loads: number;
  readonly interrupted: number;
  /** Loads that were done before the kill: what they had started ran, or was what was killed. */
  readonly loaded: number;
}

/** How many of each. */
export interface QemuKillCounts {
  /** vhu, during saves of one guest, which has to go on each time. */
  readonly savesOfOne: number;
  /** QEMU or its disk's daemon, during a save; each needs a guest of its own. */
  readonly saves: number;
  /** vhu, QEMU or the daemon, in turn, during loads of one file. */
  readonly loads: number;
}

/** As `killOperations`, for a QEMU VM with a disk that a daemon of ours serves. */
export async function killQemuOperations(seed: number, counts: QemuKillCounts): Promise<QemuKills> {
  const random = randomNumbers(seed);
  const sum = { saves: 0, loads: 0, interrupted: 0, loaded: 0 };
  for (let index = 0; index < counts.saves; index += 1) {
    await using vm = await KilledVm.boot();
    sum.saves += 1;
    const victim = VICTIMS[1 + (index % 2)]!;
    sum.interrupted += await vm.killSave(victim, random(MAX_DELAY_MS.save), index);
  }
  await using vm = await KilledVm.boot();
  for (let index = 0; index < counts.savesOfOne; index += 1) {
    sum.saves += 1;
    sum.interrupted += await vm.killSave("vhu", random(MAX_DELAY_MS.save), index);
  }
  await vm.saveAndStop();
  for (let index = 0; index < counts.loads; index += 1) {
    sum.loads += 1;
    const victim = VICTIMS[index % 3]!;
    const { interrupted, isLoaded } = await vm.killLoad(victim, random(MAX_DELAY_MS.load));
    sum.interrupted += interrupted;
    if (isLoaded) sum.loaded += 1;
  }
  await vm.loadForGood();
  return sum;
}

class KilledVm implements AsyncDisposable {
  readonly #watch: KillWatch;
  #nonce = "";

  private constructor(
    readonly dir: string,
    readonly qemu: RunningQemu,
    readonly daemon: VhuProcess,
  ) {
    this.#watch = new KillWatch(join(dir, "state"));
  }

  static async boot(): Promise<KilledVm> {
    const dir = mkdtempSync(join(tmpdir(), "vhu-kq-"));
    const [image, socket] = [join(dir, "disk.raw"), join(dir, "blk.sock")];
    writeFileSync(image, "");
    truncateSync(image, IMAGE_BYTES);
    const daemon = startVhu(["device", "run", "blk", "--socket", socket, "--image", image]);
    while (!existsSync(socket)) await Bun.sleep(5);
    const guest = livingGuest({
      dir,
      modules: ["virtio_blk"],
      each: `echo "$i" | dd of=/dev/vda bs=512 conv=notrunc,fsync 2>/dev/null || echo FAILED`,
    });
    const args = ["-chardev", `socket,id=c0,path=${socket}`, "-device", "vhost-user-blk-pci,chardev=c0"];
    const qemu = await startListening({ dir, name: "vm", guest, memoryMib: MEMORY_MIB, args });
    const vm = new KilledVm(dir, qemu, daemon);
    vm.#nonce = (await waitForBeats(qemu, 3)).nonce;
    return vm;
  }

  get #file(): string {
    return join(this.dir, "vm.vhu");
  }

  /** @returns how many operations it has interrupted */
  async killSave(victim: (typeof VICTIMS)[number], delayMs: number, index: number): Promise<number> {
    return this.#about(`${victim} ${delayMs} ms into save ${index}`, async () => {
      const live = index % 2 === 1 ? ["--live"] : [];
      const words = [
        "migrate",
        "save",
        "--disks",
        "external",
        ...live,
        `qmp:${this.qemu.qmpPath}`,
        this.#file,
      ];
      const pid = victim === "QEMU" ? this.qemu.process.pid : this.daemon.process.pid;
      await this.#watch.killDuring(words, delayMs, victim === "vhu" ? undefined : () => pid);
      const interrupted = await this.#watch.recover();
      requireWhole(this.#file);
      await this.#watch.expectNothingLeft();
      if (victim === "QEMU") return interrupted;
      const deadline = performance.now() + BOOT_TIMEOUT_MS;
      while ((await runState(this.qemu)) !== "running") {
        if (performance.now() > deadline) throw new Error(`the VM is ${await runState(this.qemu)}`);
        await Bun.sleep(20);
      }
      // Without its disk the guest waits in its next write.
      if (victim === "vhu") await this.#expectBeats();
      return interrupted;
    });
  }

  async saveAndStop(): Promise<void> {
    const saved = await this.#watch.vhu("migrate", "save", "--stop", `qmp:${this.qemu.qmpPath}`, this.#file);
    if (saved.status !== 0) throw new Error(saved.stderr);
    await this.qemu.waitForExit(BOOT_TIMEOUT_MS);
    await this.daemon.end("SIGTERM");
    copyFileSync(join(this.dir, "disk.raw"), join(this.dir, "disk.saved"));
  }

  async killLoad(
    victim: (typeof VICTIMS)[number],
    delayMs: number,
  ): Promise<{ readonly interrupted: number; readonly isLoaded: boolean }> {
    return this.#about(`${victim} ${delayMs} ms into a load`, async () => {
      this.#restoreDisk();
      const find = () => this.#watch.started().find(({ executable = "" }) => isA(victim, executable))?.pid;
      const words = ["migrate", "load", "--force", this.#file];
      await this.#watch.killDuring(words, delayMs, victim === "vhu" ? undefined : find);
      const interrupted = await this.#watch.recover();
      const [last] = this.#watch.log.list();
      const isLoaded = last?.outcome?.result === "done" || (last?.outcome?.message ?? "").endsWith("runs");
      if (isLoaded) {
        if (victim === "vhu") await this.#expectBeats();
        await this.#watch.endAll();
      }
      await this.#watch.expectNothingLeft();
      return { interrupted, isLoaded };
    });
  }

  /** Whatever happened before. */
  async loadForGood(): Promise<void> {
    this.#restoreDisk();
    const loaded = await this.#watch.vhu("migrate", "load", "--force", this.#file);
    if (loaded.status !== 0) throw new Error(`it cannot be loaded any more: ${loaded.stderr}`);
    await this.#expectBeats();
    await this.#watch.endAll();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch.endAll();
    await this.qemu.stop();
    await this.daemon[Symbol.asyncDispose]();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** The same life counts on. A new QEMU begins the file of its console anew. */
  async #expectBeats(): Promise<void> {
    const path = join(this.dir, "vm.serial");
    const counts = () => [...readFileSync(path, "latin1").matchAll(/ALIVE (\S+) \d+/g)];
    const before = counts().length;
    const deadline = performance.now() + BOOT_TIMEOUT_MS;
    while (counts().length < before + 2) {
      if (performance.now() > deadline) throw new Error(`the guest does not count: ${counts().at(-1)?.[0]}`);
      await Bun.sleep(20);
    }
    const strange = counts().find(([, nonce]) => nonce !== this.#nonce);
    if (strange !== undefined) throw new Error(`another life: ${strange[0]}`);
    if (readFileSync(path, "latin1").includes("FAILED"))
      throw new Error("the guest could not write to its disk");
  }

  #restoreDisk(): void {
    copyFileSync(join(this.dir, "disk.saved"), join(this.dir, "disk.raw"));
  }

  async #about<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (cause) {
      throw new Error(`${what}: ${(cause as Error).message}`, { cause });
    }
  }
}

function isA(victim: "vhu" | "QEMU" | "daemon", executable: string): boolean {
  return basename(executable).startsWith("qemu") === (victim === "QEMU");
}
