import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { QemuDriver } from "../../migrate/mod.ts";
import { OpenedBlocks } from "../../migrate/qemu/opened-blocks.ts";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { StateError } from "../../src/errors.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { type RunningQemu, requirePeers } from "../peers/mod.ts";
import { countingSink } from "../support/counting-sink.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  qmp,
  runState,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const TEST_TIMEOUT_MS = 3 * BOOT_TIMEOUT_MS;
const MEMORY_MIB = 128;
const BLOCK = { name: "mem", sizeBytes: MEMORY_MIB << 20 };

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qmem-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const start = (name: string, memoryObject?: string, args: readonly string[] = []) =>
  startListening({
    dir,
    name,
    guest: livingGuest({ dir }),
    memoryMib: MEMORY_MIB,
    args,
    ...(memoryObject === undefined ? {} : { memoryObject }),
  });

async function isOpened(qemu: RunningQemu): Promise<boolean> {
  using client = await QmpClient.connect(qemu.qmpPath);
  using opened = await OpenedBlocks.open(client, qemu.process.pid);
  return opened.has(BLOCK);
}

test.skipIf(!peers)(
  "memory in a file: read where it is if QEMU shares it, from the stream if not; the same life comes back from either",
  async () => {
    const ram = join("/dev/shm", `vhu-qmem-${process.pid}`);
    const size = `size=${MEMORY_MIB}M`;
    const kinds = [
      ["file", `memory-backend-file,id=mem,${size},mem-path=${ram},share=on`, true],
      ["copy", `memory-backend-file,id=mem,${size},mem-path=${ram}-private,share=off`, false],
    ] as const;
    try {
      for (const [name, memoryObject, isShared] of kinds) {
        await using source = await start(name, memoryObject);
        const { nonce } = await waitForBeats(source, 2);
        expect(await isOpened(source)).toBe(isShared);
        const file = join(dir, `${name}.vhu`);
        const saved = await runVhu(["migrate", "save", "--stop", `qmp:${source.qmpPath}`, file]);
        expect(saved).toMatchObject({ status: 0, stderr: "" });
        await source.waitForExit(BOOT_TIMEOUT_MS);
        const { count } = beats(source).at(-1)!;
        await using target = await start("target", undefined, ["-incoming", "defer"]);
        const loaded = await runVhu(["migrate", "load", file, `qmp:${target.qmpPath}`]);
        expect(loaded).toMatchObject({ status: 0, stderr: "" });
        await waitForBeats(target, 2);
        expect(beats(target)[0]).toEqual({ nonce, count: count + 1 });
      }
    } finally {
      for (const path of [ram, `${ram}-private`]) rmSync(path, { force: true });
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "somebody else cancels the save while its memory is read: said so, and the VM runs on",
  async () => {
    const second = join(dir, "second.qmp");
    await using source = await start("vm", undefined, ["-qmp", `unix:${second},server=on,wait=off`]);
    await waitForBeats(source, 2);
    const other = { ...source, qmpPath: second };
    const gate = Promise.withResolvers<void>();
    using driver = await QemuDriver.connect(source.qmpPath);
    const save = driver.save({ ...countingSink(), writeMemory: () => gate.promise });
    save.catch(() => {});
    // Only its memory is missing then: QEMU has sent all, and waits.
    while ((await runState(other)) !== "finish-migrate") await Bun.sleep(5);
    await qmp(other, "migrate_cancel");
    await waitForBeats(source, 2);
    gate.resolve();
    expect(await save.catch((error: unknown) => error)).toBeInstanceOf(StateError);
    await driver.resume();
    driver[Symbol.dispose]();
    expect(await runState(other)).toBe("running");
    const saved = await runVhu(["migrate", "save", `qmp:${source.qmpPath}`, join(dir, "after.vhu")]);
    expect(saved).toMatchObject({ status: 0, stderr: "" });
  },
  TEST_TIMEOUT_MS,
);
