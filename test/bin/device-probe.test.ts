import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UnixListener } from "../../src/sys/mod.ts";
import { type PeerBackend, startPeerBackend } from "../support/peer-backend.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

const DISK_BYTES = 1 << 20;

let dir = "";
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-probe-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

async function startDisk(): Promise<PeerBackend> {
  const image = join(dir, "disk.raw");
  writeFileSync(image, new Uint8Array(DISK_BYTES));
  const disk = startPeerBackend({
    dir,
    name: "disk",
    command: (socketPath) => [...PROGRAM, "device", "run", "blk", "--socket", socketPath, "--image", image],
  });
  await disk.listening();
  return disk;
}

async function startTestDevice(): Promise<PeerBackend> {
  const device = startPeerBackend({
    dir,
    name: "test",
    command: (socketPath) => [process.execPath, join(import.meta.dir, "serve-test-device.ts"), socketPath],
  });
  await device.listening();
  return device;
}

describe("vhu device probe", () => {
  test("exit 0: what a disk offers, for people and as JSON, and the disk serves on", async () => {
    await using disk = await startDisk();
    const words = ["device", "probe", `unix:${disk.socketPath}`, "--type", "blk"];
    const page = await runVhu(words);
    expect(page.stderr).toBe("");
    expect(page.status).toBe(0);
    expect(page.stdout).toMatch(new RegExp(`^process +${disk.process.pid}, `, "m"));
    for (const text of ["FLUSH", "DEVICE_STATE", "can be saved and loaded", "can migrate it"]) {
      expect(page.stdout).toContain(text);
    }
    const { status, stdout } = await runVhu([...words, "--json"]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      backend: `unix:${disk.socketPath}`,
      type: "blk",
      dialect: "spec",
      peer: { pid: disk.process.pid },
      queues: 1,
      memorySlots: 509,
      canSaveState: true,
      qemuMigration: { possible: true },
      config: { fields: { capacityBytes: DISK_BYTES } },
    });
    expect(disk.process.exitCode).toBeNull();
  });

  test("exit 0: the size of a config space of unknown type is found, and shared memory is listed", async () => {
    await using device = await startTestDevice();
    const { status, stdout, stderr } = await runVhu([
      "device",
      "probe",
      `unix:${device.socketPath}`,
      "--json",
    ]);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    const found = JSON.parse(stdout) as Record<string, unknown>;
    expect(found).toMatchObject({
      queues: 16,
      sharedMemoryRegions: [{ id: 3, sizeBytes: 1 << 20 }],
      config: { sizeBytes: 16, bytes: "01000000000000000200000000000000" },
    });
    expect(found.type).toBeUndefined();
    const page = await runVhu(["device", "probe", `unix:${device.socketPath}`]);
    expect(page.stdout).toContain("shared memory 3  1 MiB");
    expect(page.stdout).toContain("\n  0000  01 00 00 00");
  });

  test.each([
    [["device", "probe"], "missing required argument"],
    [["device", "probe", "disk.raw"], "wrong kind"],
    [["device", "probe", "unix:/nowhere", "--type", "toaster"], "toaster"],
    [["device", "probe", "unix:/nowhere", "--dialect", "qemu"], "qemu"],
    [["device", "probe", "unix:/nowhere", "--timeout-ms", "0"], "whole number"],
  ])("exit 2: %p", async (words, text) => {
    const { status, stdout, stderr } = await runVhu(words);
    expect(status).toBe(2);
    expect(stdout).toBe("");
    expect(stderr).toContain(text);
  });

  test("exit 4: it cannot be of the type that it should be of", async () => {
    await using disk = await startDisk();
    const queues = await runVhu(["device", "probe", `unix:${disk.socketPath}`, "--type", "scsi"]);
    expect(queues.status).toBe(4);
    expect(queues.stderr).toContain("no scsi device: it has 1 queues");
    await using device = await startTestDevice();
    const config = await runVhu(["device", "probe", `unix:${device.socketPath}`, "--type", "fs"]);
    expect(config.status).toBe(4);
    expect(config.stderr).toContain("no fs device: its config space has 16 bytes");
  });

  test("exit 5: nobody listens", async () => {
    const { status, stderr } = await runVhu(["device", "probe", `unix:${join(dir, "none")}`]);
    expect(status).toBe(5);
    expect(stderr).toContain("is the back-end running?");
  });

  test("exit 5: who listens does not answer", async () => {
    const path = join(dir, "mute");
    using _mute = UnixListener.listen(path);
    const { status, stderr } = await runVhu([
      "device",
      "probe",
      `unix:${path}`,
      "--timeout-ms",
      "50",
      "--json",
    ]);
    expect(status).toBe(5);
    expect(JSON.parse(stderr)).toMatchObject({ type: "error", code: "PEER", exitStatus: 5 });
    expect(stderr).toContain("no answer to GET_FEATURES within 50 ms");
  });
});
