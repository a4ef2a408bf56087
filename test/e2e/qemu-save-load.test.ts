import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { PROGRAM, type Ran, runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  qmp,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { expectDone } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const TEST_TIMEOUT_MS = 3 * BOOT_TIMEOUT_MS;
const MEMORY_MIB = 256;

let dir: string;
let file: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qsl-"));
  file = join(dir, "vm.vhu");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const vhu = (...words: string[]): Promise<Ran> =>
  runVhu(words, { env: { XDG_STATE_HOME: join(dir, "state") } });
const boot = (args: readonly string[] = []) =>
  startListening({ dir, name: "source", guest: livingGuest({ dir }), memoryMib: MEMORY_MIB, args });
const waiting = (name: string, args: readonly string[] = [], memoryMib = MEMORY_MIB) =>
  startListening({
    dir,
    name,
    guest: livingGuest({ dir }),
    memoryMib,
    args: ["-incoming", "defer", ...args],
  });
const address = (qemu: RunningQemu) => `qmp:${qemu.qmpPath}`;

test.skipIf(!peers)(
  "a VM is saved and goes on; after SIGKILL it is loaded twice, and each is the same life",
  async () => {
    await using source = await boot();
    const settings = ["query-migrate-capabilities", "query-migrate-parameters"];
    const { nonce } = await waitForBeats(source, 3);
    const before = [await qmp(source, settings[0]!), await qmp(source, settings[1]!)];
    const check = await vhu("migrate", "check", address(source));
    expect(check.stdout).toContain("can be saved");
    expect(check.status).toBe(0);
    expectDone(await vhu("migrate", "save", address(source), file));
    expect(await runState(source)).toBe("running");
    expect([await qmp(source, settings[0]!), await qmp(source, settings[1]!)]).toEqual(before);
    const atSave = beats(source).length;
    await waitForBeats(source, 3);
    // Again without anything in between: QEMU is not in a state after a migration.
    expectDone(await vhu("migrate", "save", address(source), join(dir, "second.vhu")));
    await waitForBeats(source, 3);
    await source.stop();
    expectDone(await vhu("snapshot", "verify", "--deep", file));
    for (const name of ["one", "two"]) {
      await using target = await waiting(name);
      expectDone(await vhu("migrate", "load", file, address(target)));
      await waitForBeats(target, 5);
      const [first] = beats(target);
      expect(first).toEqual({ nonce, count: first!.count });
      expect(first!.count).toBeLessThanOrEqual(atSave + 1);
      expect(beats(target).map(({ count }) => count)).toEqual(
        beats(target).map((_, index) => first!.count + index),
      );
      expect(await runState(target)).toBe("running");
      // Memory that the guest never used is not allocated by the load.
      const status = readFileSync(`/proc/${target.process.pid}/status`, "utf8");
      const residentBytes = Number(/RssShmem:\s*(\d+) kB/.exec(status)![1]) * 1024;
      expect(residentBytes).toBeLessThan((MEMORY_MIB << 20) * 0.75);
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a paused VM is paused after the save and after the load; --paused leaves a running one paused",
  async () => {
    await using source = await boot();
    const { nonce } = await waitForBeats(source, 2);
    const running = join(dir, "running.vhu");
    expectDone(await vhu("migrate", "save", address(source), running));
    await qmp(source, "stop");
    expectDone(await vhu("migrate", "save", address(source), file));
    expect(await runState(source)).toBe("paused");
    await source.stop();
    for (const [name, path, options] of [
      ["one", file, []],
      ["two", running, ["--paused"]],
    ] as const) {
      await using target = await waiting(name);
      expectDone(await vhu("migrate", "load", ...options, path, address(target)));
      expect(await runState(target)).toBe("paused");
      expect(beats(target)).toEqual([]);
      await qmp(target, "cont");
      expect((await waitForBeats(target, 2)).nonce).toBe(nonce);
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "--stop ends the VM once the file is whole; what is loaded goes on after the last count",
  async () => {
    await using source = await boot();
    const { nonce } = await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", "--stop", address(source), file));
    expect(await source.waitForExit(BOOT_TIMEOUT_MS)).toBe(0);
    const last = beats(source).at(-1)!.count;
    await using target = await waiting("one");
    expectDone(await vhu("migrate", "load", file, address(target)));
    await waitForBeats(target, 1);
    expect(beats(target)[0]).toEqual({ nonce, count: last + 1 });
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "vhu is killed in the middle of a save, or interrupted: the VM goes on, there is no file, and the next save works",
  async () => {
    await using source = await boot();
    await waitForBeats(source, 2);
    const settings = await qmp(source, "query-migrate-parameters");
    // A pipe that nobody empties holds vhu, and so QEMU, in the middle of the memory.
    const pipe = Bun.spawn([...PROGRAM, "migrate", "save", address(source), "-"], {
      stdout: "pipe",
      stderr: "ignore",
    });
    const reader = pipe.stdout.getReader();
    expect((await reader.read()).done).toBe(false);
    pipe.kill("SIGKILL");
    await pipe.exited;
    await reader.cancel();
    await waitForBeats(source, 2);
    expect(await runState(source)).toBe("running");
    const words = ["migrate", "save", "--json", address(source), file];
    const child = Bun.spawn([...PROGRAM, ...words], { stdout: "pipe", stderr: "ignore" });
    const progress = child.stdout.getReader();
    expect(new TextDecoder().decode((await progress.read()).value)).toContain('"status"');
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(existsSync(file)).toBe(false);
    await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", address(source), file));
    expect(readdirSync(dir).filter((name) => name.endsWith(".tmp"))).toEqual([]);
    // What the killed one left behind is put right by the next.
    expect(await qmp(source, "query-migrate-parameters")).toEqual(settings);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "QEMU is killed in the middle of a save, and of a load: vhu says so, there is no file and no process",
  async () => {
    const words = (verb: string, ...rest: string[]) => [...PROGRAM, "migrate", verb, "--json", ...rest];
    await using source = await boot();
    await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", address(source), file));
    const never = join(dir, "never.vhu");
    await using target = await waiting("one");
    for (const [command, victim] of [
      [words("load", file, address(target)), target],
      [words("save", address(source), never), source],
    ] as const) {
      const child = Bun.spawn([...command], { stdout: "pipe", stderr: "pipe" });
      const progress = child.stdout.getReader();
      expect(new TextDecoder().decode((await progress.read()).value)).toContain('"status"');
      await victim.stop();
      while (!(await progress.read()).done);
      expect(await child.exited).toBe(5);
      expect(await child.stderr.text()).toMatch(/QEMU/);
    }
    expect(existsSync(never)).toBe(false);
    await using again = await waiting("two");
    expectDone(await vhu("migrate", "load", file, address(again)));
    await waitForBeats(again, 1);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a flipped byte anywhere is refused, and QEMU never runs what came before it",
  async () => {
    await using source = await boot();
    await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", "--stop", address(source), file));
    const bytes = readFileSync(file);
    using reader = SnapshotReader.open(file);
    const extents = reader.memoryMap
      .flatMap(({ id }) => reader.extents(id))
      .filter(({ frame }) => frame !== undefined);
    const middle = extents[extents.length >> 1]!.frame!;
    const last = extents.at(-1)!.frame!;
    const stream = reader
      .records()
      .filter(({ typeName }) => typeName === "qemuStream")
      .at(-1)!;
    const places = [40, middle.offset + 100, last.offset + 1, stream.offset + 100, bytes.length - 40];
    for (const [index, place] of places.entries()) {
      const damaged = join(dir, `damaged-${index}.vhu`);
      const copy = Buffer.from(bytes);
      copy[place]! ^= 0x10;
      writeFileSync(damaged, copy);
      await using target = await waiting(`t${index}`);
      const ran = await vhu("migrate", "load", damaged, address(target));
      expect(ran.status).toBe(3);
      expect(beats(target)).toEqual([]);
      // Refused before the stream began, the same QEMU takes the whole file; else it has ended.
      const hasEnded = await Promise.race([
        target.process.exited.then(() => true),
        Bun.sleep(500).then(() => false),
      ]);
      if (hasEnded) continue;
      expect(await runState(target)).toBe("inmigrate");
      if (index === 0) expectDone(await vhu("migrate", "load", file, address(target)));
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "what does not fit is said before a byte is sent: another memory size, a QEMU that waits for nothing, nobody",
  async () => {
    await using source = await boot();
    await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", address(source), file));
    const busy = await vhu("migrate", "load", file, address(source));
    expect(busy).toMatchObject({ status: 4 });
    expect(busy.stderr).toContain("-incoming defer");
    await waitForBeats(source, 1);
    await using smaller = await waiting("small", [], MEMORY_MIB / 2);
    const ran = await vhu("migrate", "load", file, address(smaller));
    expect(ran).toMatchObject({ status: 4 });
    expect(ran.stderr).toContain("memory in bytes");
    expect(await runState(smaller)).toBe("inmigrate");
    expect((await vhu("migrate", "save", `qmp:${join(dir, "nobody")}`, file)).status).toBe(5);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "check names what is in the way, and save refuses with the same words",
  async () => {
    const image = join(dir, "disk.raw");
    writeFileSync(image, new Uint8Array(1 << 20));
    await using source = await boot([
      ...["-blockdev", "driver=null-co,node-name=n0", "-device", "nvme,serial=1,drive=n0"],
      ...["-drive", `if=virtio,format=raw,file=${image}`],
    ]);
    const check = await vhu("migrate", "check", "--json", address(source));
    expect(check.status).toBe(4);
    const { checks } = JSON.parse(check.stdout) as {
      checks: { name: string; ok: boolean; detail: string }[];
    };
    const failed = checks.filter(({ ok }) => !ok);
    expect(failed.map(({ name }) => name)).toEqual(["migration", "disks"]);
    expect(failed[0]!.detail).toContain("nvme");
    expect(failed[1]!.detail).toContain(image);
    const plain = await vhu("migrate", "check", "--disks", "external", address(source));
    expect(plain.stdout).toMatch(/FAILED +migration/);
    expect(plain.stdout).toMatch(/passed +disks/);
    expect((await vhu("migrate", "check", "--disks", "what", address(source))).status).toBe(2);
    const save = await vhu("migrate", "save", address(source), file);
    expect(save).toMatchObject({ status: 4 });
    expect(save.stderr).toContain("nvme");
    expect(existsSync(file)).toBe(false);
    expect(await runState(source)).toBe("running");
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a disk that has changed since the save is refused, unless forced",
  async () => {
    const image = join(dir, "disk.raw");
    writeFileSync(image, new Uint8Array(1 << 20));
    const disk = ["-drive", `if=virtio,format=raw,file=${image}`];
    await using source = await boot(disk);
    await waitForBeats(source, 2);
    expectDone(await vhu("migrate", "save", "--stop", address(source), file));
    await source.waitForExit(BOOT_TIMEOUT_MS);
    const same = join(dir, "same.raw");
    copyFileSync(image, same);
    writeFileSync(image, readFileSync(same));
    await using target = await waiting("one", disk);
    const ran = await vhu("migrate", "load", file, address(target));
    expect(ran).toMatchObject({ status: 4 });
    expect(ran.stderr).toContain(image);
    expectDone(await vhu("migrate", "load", "--force", file, address(target)));
    await waitForBeats(target, 1);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "in the background, and through pipes: the VM runs on meanwhile; what came of it is whole, and the same life",
  async () => {
    const state = { XDG_STATE_HOME: join(dir, "state") };
    await using source = await boot();
    const { nonce } = await waitForBeats(source, 3);
    const piped = Bun.spawn([...PROGRAM, "migrate", "save", address(source), "-"], {
      stdout: "pipe",
      stderr: "ignore",
      env: { ...process.env, ...state },
    });
    const snapshot = await piped.stdout.bytes();
    expect(await piped.exited).toBe(0);
    const verified = await runVhu(["snapshot", "verify", "--deep", "-"], { stdin: snapshot });
    expect(verified).toMatchObject({ status: 0, stderr: "" });
    const both = await vhu("migrate", "save", "--background", "--live", address(source), file);
    expect(both.status).toBe(2);
    const before = beats(source).length;
    const ran = await vhu("migrate", "save", "--background", address(source), file);
    // A host whose kernel cannot hold up writes to this memory: QEMU says so, and the VM is left alone.
    if (ran.status !== 0) expect(ran).toMatchObject({ status: 4 });
    expect(await runState(source)).toBe("running");
    await waitForBeats(source, 3);
    await source.stop();
    await using first = await waiting("one");
    const loaded = await runVhu(["migrate", "load", "-", address(first)], { stdin: snapshot, env: state });
    expectDone(loaded);
    await waitForBeats(first, 3);
    expect(beats(first)[0]!.nonce).toBe(nonce);
    if (ran.status !== 0) return;
    await using second = await waiting("two");
    expectDone(await vhu("migrate", "load", file, address(second)));
    await waitForBeats(second, 3);
    // As it was when the save began.
    expect(beats(second)[0]!.nonce).toBe(nonce);
    expect(beats(second)[0]!.count).toBeGreaterThanOrEqual(before);
    expect(beats(second)[0]!.count).toBeLessThan(beats(source).at(-1)!.count);
  },
  TEST_TIMEOUT_MS,
);
