import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  GuestMemory,
  loadMachine,
  loadNewQemu,
  QemuDriver,
  type QemuLaunch,
  qemuCommand,
  saveMachine,
  sourceWithMemory,
} from "../../migrate/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { FormatError, PeerError } from "../../src/errors.ts";
import { requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { qemusWith } from "../support/processes-with.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const TEST_TIMEOUT_MS = 2 * BOOT_TIMEOUT_MS;

let dir: string;
let file: string;
let serial: string;
let nonce: string;
let last: number;

/** A VM with plain -m: QEMU makes the memory's backend itself. */
beforeAll(async () => {
  if (!peers) return;
  dir = mkdtempSync(join(tmpdir(), "vhu-qload-"));
  file = join(dir, "vm.vhu");
  await using source = await startListening({
    dir,
    name: "vm",
    guest: livingGuest({ dir }),
    memoryMib: 256,
    hasPlainMemory: true,
    args: ["-vga", "std"],
  });
  ({ nonce } = await waitForBeats(source, 3));
  using driver = await QemuDriver.connect(source.qmpPath);
  await saveMachine(driver, file, { writer: { name: "test", version: "1" }, after: "stop" });
  await source.waitForExit(BOOT_TIMEOUT_MS);
  last = beats(source).at(-1)!.count;
  serial = join(dir, "vm.serial");
}, BOOT_TIMEOUT_MS);
afterAll(() => dir && rmSync(dir, { recursive: true, force: true }));

/** A kill takes a moment. */
const untilGone = async () => {
  while (qemusWith(dir).length > 0) await Bun.sleep(5);
};
afterEach(untilGone);

let loads = 0;
const commandFor = (reader: SnapshotReader) =>
  qemuCommand(reader.manifest.machine, { roots: ["/"], socketPath: join(dir, `${loads++}.qmp`) });

/** A reader in which the largest region comes as `load` says; nothing else is different. */
function readerWith(load: (id: number, fd: number) => Promise<void>): SnapshotReader {
  const reader = SnapshotReader.open(file);
  const largest = reader.memoryMap.toSorted((a, b) => b.sizeBytes - a.sizeBytes)[0]!.id;
  const loadRegion = reader.loadRegion.bind(reader);
  reader.loadRegion = async (id, fd, options) => {
    await loadRegion(id, fd, options);
    if (id === largest) await load(id, fd);
  };
  return reader;
}

async function untilThere(): Promise<number> {
  for (;;) {
    const [pid] = qemusWith(dir);
    if (pid !== undefined) return pid;
    await Bun.sleep(5);
  }
}

test.skipIf(!peers)(
  "a VM with plain -m has the memory that vhu made; video memory and ROMs come in the stream",
  async () => {
    using reader = SnapshotReader.open(file);
    expect(reader.memoryMap.map(({ name }) => name)).toContain("pc.ram");
    const launch: QemuLaunch = await loadNewQemu(reader, commandFor(reader));
    try {
      const deadline = performance.now() + BOOT_TIMEOUT_MS;
      const seen = () => [...readFileSync(serial, "latin1").matchAll(/ALIVE (\S+) (\d+)\r?\n/g)];
      while (seen().length < 3 && performance.now() < deadline) await Bun.sleep(10);
      expect(seen().map(([, id, count]) => [id, Number(count)])).toEqual(
        seen().map((_, index) => [nonce, last + 1 + index]),
      );
      expect(readFileSync(`/proc/${launch.pid}/maps`, "utf8")).toContain("memfd:guest memory");
    } finally {
      process.kill(launch.pid, "SIGKILL");
    }
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a QEMU that waits already gets memory that came before the rest, too: all of it in the stream",
  async () => {
    using reader = SnapshotReader.open(file);
    await using target = await startListening({
      ...{ dir, name: "waiting", guest: livingGuest({ dir }), memoryMib: 256, hasPlainMemory: true },
      args: ["-vga", "std", "-incoming", "defer"],
    });
    using memory = GuestMemory.create(reader.memoryMap);
    await memory.fill(reader);
    using driver = await QemuDriver.connect(target.qmpPath);
    const source = sourceWithMemory(reader, memory);
    const { memory: _inTheFile, ...withoutIt } = source;
    const noMemory = () => {
      throw new Error("the memory is not in the file");
    };
    await loadMachine(driver, { ...withoutIt, memory: noMemory });
    await waitForBeats(target, 3);
    expect(beats(target)[0]).toEqual({ nonce, count: last + 1 });
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "a damaged extent, found when QEMU already waits: QEMU never runs, and is gone",
  async () => {
    rmSync(serial, { force: true });
    using reader = readerWith(async () => {
      await untilThere();
      throw new FormatError("the checksum of the memory does not match", "memory region 0");
    });
    await expect(loadNewQemu(reader, commandFor(reader))).rejects.toThrow("checksum");
    await untilGone();
    expect(
      await Bun.file(serial)
        .exists()
        .then((is) => (is ? Bun.file(serial).text() : "")),
    ).toBe("");
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!peers)(
  "QEMU dies while its memory is filled: said with its last words; cancelled: no process is left",
  async () => {
    using dying = readerWith(async () => {
      process.kill(await untilThere(), "SIGKILL");
    });
    const died = loadNewQemu(dying, commandFor(dying));
    await expect(died).rejects.toBeInstanceOf(PeerError);
    await untilGone();
    const cancel = new AbortController();
    using cancelled = readerWith(async () => {
      await untilThere();
      cancel.abort(new Error("enough"));
    });
    const load = loadNewQemu(cancelled, commandFor(cancelled), { signal: cancel.signal });
    await expect(load).rejects.toThrow("enough");
  },
  TEST_TIMEOUT_MS,
);
