/** Core files of QEMU machines against QEMU's own dump of the same paused VM, and against where QEMU has its memory. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { qemuCoreLayout } from "../../migrate/qemu/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import { BOOT_TIMEOUT_MS, livingGuest, qmp, startListening, waitForBeats } from "../support/living-guest.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const MEMORY_MIB = 128;
const PROCESSORS = 2;
let dir = "";
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-core-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);

async function answers(qemu: { readonly qmpPath: string }): Promise<boolean> {
  return await qmp(qemu, "query-status").then(
    () => true,
    () => false,
  );
}

interface Core {
  readonly notes: readonly { readonly name: string; readonly type: number; readonly content: Buffer }[];
  readonly loads: readonly { readonly address: number; readonly bytes: Buffer }[];
}

function readCore(path: string): Core {
  const file = readFileSync(path);
  const count = file.readUInt16LE(56);
  const notes: { name: string; type: number; content: Buffer }[] = [];
  const loads: { address: number; bytes: Buffer }[] = [];
  for (let index = 0; index < count; index += 1) {
    const head = file.subarray(Number(file.readBigUInt64LE(32)) + 56 * index);
    const [offset, , address, size] = [8, 16, 24, 32].map((field) => Number(head.readBigUInt64LE(field)));
    const content = file.subarray(offset, offset! + size!);
    if (head.readUInt32LE(0) === 1) loads.push({ address: address!, bytes: content });
    else notes.push(...notesIn(content));
  }
  return { notes, loads };
}

function* notesIn(bytes: Buffer) {
  for (let place = 0; place < bytes.length; ) {
    const [nameBytes, contentBytes, type] = [0, 4, 8].map((field) => bytes.readUInt32LE(place + field)) as [
      number,
      number,
      number,
    ];
    const contentAt = place + 12 + Math.ceil(nameBytes / 4) * 4;
    const name = bytes.toString("latin1", place + 12, place + 12 + nameBytes - 1);
    yield { name, type, content: bytes.subarray(contentAt, contentAt + contentBytes) };
    place = contentAt + Math.ceil(contentBytes / 4) * 4;
  }
}

describe.skipIf(!peers)("a core file of a QEMU machine", () => {
  test(
    "has the registers and the memory that dump-guest-memory writes of the same VM, for gdb, too",
    async () => {
      await using qemu = await startListening({
        dir,
        name: "source",
        guest: livingGuest({ dir }),
        memoryMib: MEMORY_MIB,
        args: ["-smp", String(PROCESSORS)],
      });
      await waitForBeats(qemu, 2);
      await qmp(qemu, "stop");
      await qmp(qemu, "dump-guest-memory", { paging: false, protocol: `file:${at("theirs.core")}` });
      const env = { XDG_STATE_HOME: at("state") };
      const saved = await runVhu(["migrate", "save", `qmp:${qemu.qmpPath}`, at("vm.vhu")], { env });
      expect([saved.stderr, saved.status]).toEqual(["", 0]);
      const ran = await runVhu(["snapshot", "extract", "--core", at("vm.vhu"), at("ours.core")]);
      expect(ran).toMatchObject({ status: 0, stderr: "" });
      expect(ran.stdout).toContain("with the processors' registers");

      const [theirs, ours] = [readCore(at("theirs.core")), readCore(at("ours.core"))];
      const known = theirs.notes.filter(({ name }) => name === "CORE" || name === "QEMU");
      expect(known.map(({ name }) => name)).toEqual(["CORE", "CORE", "QEMU", "QEMU"]);
      expect(ours.notes).toEqual(known);
      let compared = 0;
      for (const { address, bytes } of theirs.loads) {
        const same = ours.loads.find(
          (load) => load.address <= address && address + bytes.length <= load.address + load.bytes.length,
        );
        // Video memory, at an address of its own, is no RAM.
        if (same === undefined) continue;
        const from = address - same.address;
        expect(Buffer.compare(same.bytes.subarray(from, from + bytes.length), bytes)).toBe(0);
        compared += bytes.length;
      }
      expect(compared).toBeGreaterThan((MEMORY_MIB - 1) << 20);

      const json = await runVhu(["snapshot", "extract", "--json", "--core", at("vm.vhu"), at("ours.core")]);
      expect(JSON.parse(json.stdout.trim().split("\n").at(-1)!)).toMatchObject({
        type: "summary",
        hasRegisters: true,
      });
      const gdb = Bun.which("gdb");
      if (gdb === null) {
        console.warn("gdb is missing, so only our own reader looked at the core file: apt-get install gdb");
        return;
      }
      const told = Bun.spawnSync([
        gdb,
        "-nx",
        "-batch",
        "-ex",
        "info threads",
        "-ex",
        "p/x $rip",
        `--core=${at("ours.core")}`,
      ]);
      const rip = known[0]!.content.readBigUInt64LE(112 + 8 * 16);
      expect(told.stdout.toString()).toContain(`$1 = 0x${rip.toString(16)}`);
      expect(told.stdout.toString().match(/LWP/g)!.length).toBeGreaterThanOrEqual(PROCESSORS);
    },
    2 * BOOT_TIMEOUT_MS,
  );

  /** QEMU has the memory of a machine that does not run: nothing of it is touched. */
  test.each([
    ["q35", 2048],
    ["q35", 2816],
    ["q35", 4096],
    ["pc", 3072],
    ["pc", 3584],
    ["pc", 6144],
    ["microvm", 3072],
    ["microvm", 3328],
    ["microvm", 3584],
    ["microvm", 6144],
  ])("has its memory where a %s of %d MiB has it", async (machineType, memoryMib) => {
    const qmpPath = at("layout.qmp");
    const memory = `memory-backend-ram,id=big,size=${memoryMib}M`;
    const words = ["-S", "-nodefaults", "-display", "none", "-object", memory, "-m", `${memoryMib}`];
    const cmd = [
      ...peers!["qemu-system-x86_64"].command,
      ...words,
      "-machine",
      `${machineType},memory-backend=big`,
      "-qmp",
      `unix:${qmpPath},server=on,wait=off`,
    ];
    rmSync(qmpPath, { force: true });
    await using qemu = {
      process: Bun.spawn({ cmd, stdio: ["ignore", "ignore", "inherit"] }),
      qmpPath,
      [Symbol.asyncDispose]: async () => {
        qemu.process.kill("SIGKILL");
        await qemu.process.exited;
      },
    };
    // The path is there a moment before it is listened at.
    while (qemu.process.exitCode === null && !(await answers(qemu))) await Bun.sleep(5);
    const text = String(await qmp(qemu, "human-monitor-command", { "command-line": "info mtree -f" }));
    const [view] = text.split("FlatView").filter((each) => each.includes('AS "memory"'));
    const ranges = [
      ...view!.matchAll(/([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): big(?: @([0-9a-f]+))?/g),
    ];
    expect(ranges.length).toBeGreaterThan(0);
    const path = at("layout.vhu");
    const type = (await qmp(qemu, "query-machines")) as { name: string; alias?: string }[];
    const named = type.find(({ name, alias }) => alias === machineType || name === machineType)!.name;
    {
      using writer = SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" } });
      const sizeBytes = memoryMib << 10;
      writer.writeMemoryMap([
        { id: 4, guestAddress: 0, sizeBytes: 4096, name: "pc.bios" },
        { id: 7, guestAddress: 0, sizeBytes: sizeBytes * 1024, name: "big" },
      ]);
      writer.writeHole(4, 0, 4096);
      writer.writeHole(7, 0, sizeBytes * 1024);
      const lists = { virtioDevices: [], sockets: [], disks: [] };
      const machine = { kind: "qemu", name: "m", machineType: named, runState: "paused", ...lists };
      writer.writeManifest({ machine, devices: [], memory: { totalBytes: 0 } });
      writer.finish();
    }
    using reader = SnapshotReader.open(path);
    const { segments, hasRegisters } = qemuCoreLayout(reader);
    expect(hasRegisters).toBe(false);
    for (const [, first, last, offset = "0"] of ranges) {
      const [from, to, within] = [first!, last!, offset].map((each) => Number.parseInt(each, 16)) as [
        number,
        number,
        number,
      ];
      const segment = segments.find(
        (each) => each.guestAddress <= from && to < each.guestAddress + each.sizeBytes,
      );
      expect([machineType, from, segment?.offset]).toEqual([
        machineType,
        from,
        within - (from - (segment?.guestAddress ?? 0)),
      ]);
    }
    expect(segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)).toBe(memoryMib * 1024 * 1024);
  });
});
