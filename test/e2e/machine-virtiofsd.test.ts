import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MachineDriver } from "../../migrate/machine/mod.ts";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import { startVhu } from "../support/vhu-process.ts";

const peers = requirePeers(["virtiofsd"]);
const FILES = 1000;

/** A virtiofsd of the test's own; it ends with the first front-end, or by SIGKILL. */
async function startVirtiofsd(folder: string) {
  const socket = join(folder, "fs.sock");
  rmSync(socket, { force: true });
  const child = Bun.spawn(
    [
      "setpriv",
      "--pdeathsig",
      "KILL",
      "--",
      ...peers!.virtiofsd.command,
      "--socket-path",
      socket,
      "--shared-dir",
      join(folder, "share"),
      "--sandbox",
      "none",
    ],
    { stdio: ["ignore", "ignore", "ignore"] },
  );
  for (
    let i = 0;
    i < 500 &&
    !(await Bun.file(socket)
      .stat()
      .catch(() => undefined));
    i++
  )
    await Bun.sleep(10);
  return child;
}

async function waitForReads(path: string, atLeast: number) {
  using driver = new MachineDriver(path);
  for (let i = 0; i < 1000; i++) {
    const status = await driver.status();
    const counters = status.workloads[0]!.counters;
    if (counters.errors! > 0) throw new Error(`the workload met an error: ${JSON.stringify(counters)}`);
    if (counters.reads! >= atLeast) return status;
    await Bun.sleep(10);
  }
  throw new Error(`not ${atLeast} reads`);
}

test.skipIf(!peers)(
  "a machine on virtiofsd: saved with 1,000 files looked up and 8 open, both killed, loaded; the open files read on",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "vhu-fs-"));
    try {
      mkdirSync(join(folder, "share"));
      for (let i = 0; i < FILES; i++) {
        writeFileSync(
          join(folder, "share", `file-${String(i).padStart(4, "0")}`),
          `file ${i} ${"x".repeat(i % 97)}`,
        );
      }
      writeFileSync(
        join(folder, "m.toml"),
        'name = "m"\nsocket = "m.sock"\n[memory]\nsize-mib = 8\n[[device]]\nname = "fs0"\ntype = "fs"\nsocket = "fs.sock"\n[[workload]]\nkind = "files"\nshare = "fs0"\nlookups = 1000\nopen = 8\n',
      );
      const socket = join(folder, "m.sock");
      const snapshot = join(folder, "m.vhu");
      const daemon = await startVirtiofsd(folder);
      await using machine = startVhu(["machine", "run", join(folder, "m.toml")]);
      await machine.waitForStderr(/ready/, 20_000);
      const before = await waitForReads(socket, 40);
      expect(before.workloads[0]!.counters).toMatchObject({ lookedUp: FILES, open: 8, mismatches: 0 });
      const save = await runVhu(["migrate", "save", `machine:${socket}`, snapshot, "--json"]);
      expect(save).toMatchObject({ status: 0 });
      const { stateBytes } = firstDevice(snapshot);
      // 18 bytes an inode, more or less, and the open handles: not the empty state of 10 bytes.
      expect(stateBytes).toBeGreaterThan(FILES * 10);
      daemon.kill("SIGKILL");
      await machine.end("SIGKILL");
      await daemon.exited;

      const second = await startVirtiofsd(folder);
      try {
        const state = { XDG_STATE_HOME: join(folder, "state") };
        const refused = await runVhu(["migrate", "load", snapshot], { env: state });
        expect(refused.status).toBe(4);
        expect(refused.stderr).toContain("--trust");
        const load = await runVhu(["migrate", "load", "--trust", snapshot], { env: state });
        expect(load).toMatchObject({ status: 0 });
        await waitForReads(socket, before.workloads[0]!.counters.reads! + 80);
        const verify = await runVhu(["machine", "verify", `machine:${socket}`, "--json"]);
        expect(JSON.parse(verify.stdout)).toMatchObject({ ok: true, checked: 8, torn: 0 });
      } finally {
        await runVhu(["machine", "stop", `machine:${socket}`]);
        second.kill("SIGKILL");
        await second.exited;
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  90_000,
);

function firstDevice(path: string) {
  using reader = SnapshotReader.open(path);
  return reader.manifest.devices[0]!;
}

test.skipIf(!peers)(
  "vhu migrate save and load with virtiofsd itself: CHECK answers 0 on both",
  async () => {
    const folder = mkdtempSync(join(tmpdir(), "vhu-fs-"));
    try {
      mkdirSync(join(folder, "share"));
      const address = `unix:${join(folder, "fs.sock")}`;
      const snapshot = join(folder, "fs.vhu");
      const first = await startVirtiofsd(folder);
      const save = await runVhu(["migrate", "save", "--type", "fs", address, snapshot]);
      expect(save).toMatchObject({ status: 0 });
      await first.exited;
      const second = await startVirtiofsd(folder);
      const load = await runVhu(["migrate", "load", snapshot, address]);
      expect(load).toMatchObject({ status: 0 });
      await second.exited;
      const inspect = await runVhu(["snapshot", "inspect", "--json", snapshot]);
      expect(JSON.parse(inspect.stdout).devices[0]).toMatchObject({ type: "fs", stateBytes: 10 });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);
