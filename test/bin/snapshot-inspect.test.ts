import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadChecks, OwnSnapshots } from "../../migrate/mod.ts";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { ROOT } from "../support/source-files.ts";
import { runVhu } from "./run-vhu.ts";

const source = fixture.paths[1]!;
const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const inspect = (...words: string[]) => runVhu(["snapshot", "inspect", ...words]);

/** A snapshot without memory: what the manifest says is what counts. */
function snapshotOf(
  name: string,
  machine: Record<string, unknown>,
  architecture = process.arch as string,
): string {
  const path = join(folder, name);
  const host = { kernel: "6.18.0", architecture, cpu: "a CPU" };
  using writer = SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" }, host });
  writer.writeManifest({ machine, devices: [], memory: { totalBytes: 0 } });
  writer.finish();
  return path;
}

async function failedChecks(path: string): Promise<string[]> {
  using reader = SnapshotReader.open(path);
  return (await loadChecks(reader)).filter(({ ok }) => !ok).map(({ name }) => name);
}

test("--device: a state as a tree, as JSON, as bytes", async () => {
  const tree = await inspect("--device", "console0", source);
  expect([tree.status, tree.stderr]).toEqual([0, ""]);
  expect(tree.stdout).toContain("console0 (vhu console, version 1)");
  expect(tree.stdout).toContain("│  ├─ columns: 80");
  const json = JSON.parse((await inspect("--device", "console0", "--json", source)).stdout);
  expect(json.state.children[1]).toMatchObject({ name: "config", children: [{ value: 80 }, { value: 25 }] });
  const hex = (await inspect("--device", "console0", "--hex", source)).stdout.trimEnd().split("\n");
  expect(hex[0]).toBe("00000000  56 48 55 53 54 41 54 45  01 00 00 00 4a 00 00 00  |VHUSTATE....J...|");
  expect(hex.at(-1)).toBe("000000f0");
  const bytes = hex.slice(0, -1).map((line) => line.slice(10, 58).replaceAll(" ", ""));
  expect(bytes.join("")).toBe(Buffer.from(fixture.deviceState).toString("hex"));
});

test("--as: a form without a magic number; what it cannot be is said", async () => {
  const state = join(ROOT, "test", "fixtures", "virtiofsd-1.13.2-find-paths.state");
  const path = join(folder, "fs.vhu");
  await runVhu(["snapshot", "replace", "--device", "console0", "--state", state, source, path]);
  const unknown = await inspect("--device", "console0", path);
  expect(unknown.stdout).toContain("of no form that vhu knows");
  const tree = await inspect("--device", "console0", "--as", "virtiofsd", path);
  expect(tree.stdout).toContain('filename: "folder"');
  const wrong = await inspect("--device", "console0", "--as", "passt", path);
  expect([wrong.status, wrong.stdout]).toEqual([3, ""]);
  expect(wrong.stderr).toContain("no state of passt");
});

test("--section: each part of the file, for people and for programs", async () => {
  const manifest = JSON.parse((await inspect("--section", "manifest", "--json", source)).stdout);
  expect(manifest).toMatchObject({ machine: { name: "fixture" }, memory: { totalBytes: 264 * 1024 } });
  expect((await inspect("--section", "index", source)).stdout).toContain('type: "extents"');
  expect((await inspect("--section", "machine-state", "--hex", source)).stdout).toContain(
    "|machine state of|",
  );
  const header = await inspect("--section", "header", "--hex", source);
  expect(header.stdout).toStartWith("00000000  7b 22 77 72 69 74 65 72");
});

test("2 for options that do not go together, and for what is not there", async () => {
  for (const [words, message] of [
    [["--hex"], "say which bytes"],
    [["--device", "a", "--section", "index"], "--device or --section"],
    [["--as", "vhu"], "goes with --device"],
    [["--device", "a", "--as", "qemu"], "Allowed choices"],
    [["--device", "none"], "it has console0"],
    [["--section", "none"], "there are header, manifest"],
    [["--section", "qemu-stream"], "has no qemu-stream"],
  ] as const) {
    const ran = await inspect(...words, source);
    expect([ran.status, ran.stdout]).toEqual([2, ""]);
    expect(ran.stderr).toContain(message);
  }
});

test("a native machine: what is in the way here is named, and what the page says is what JSON says", async () => {
  const [image, log] = [join(folder, "disk.img"), join(folder, "console.log")];
  const machine = {
    ...{ name: "m", socket: join(folder, "m.sock"), memory: { "size-mib": 8 } },
    device: [
      { name: "disk0", type: "blk", image, "queue-size": 128 },
      { name: "console0", type: "console", file: log, "queue-size": 128 },
      { name: "share", type: "fs", socket: join(folder, "fs.sock"), tag: "t", "queue-size": 128 },
    ],
    workload: [],
  };
  const path = snapshotOf("native.vhu", machine);
  expect(await failedChecks(path)).toEqual(["trust", "device disk0", "device share"]);
  writeFileSync(image, "");
  const env = { XDG_STATE_HOME: join(folder, "state") };
  using reader = SnapshotReader.open(path);
  new OwnSnapshots(join(env.XDG_STATE_HOME, "vhu")).add(reader.root);
  const page = await runVhu(["snapshot", "inspect", path], { env });
  expect(page.stdout).toContain("can it be loaded on this host? not as it is, 1 of 8 checks failed");
  expect(page.stdout).toContain("nobody listens at");
  expect(page.stdout).toContain("written by you on this host");
  const json = JSON.parse((await runVhu(["snapshot", "inspect", path, "--json"], { env })).stdout);
  expect(json.canLoad).toBe(false);
  expect(json.checks.filter(({ ok }: { ok: boolean }) => !ok)).toMatchObject([{ name: "device share" }]);
  const there = { ...machine, device: machine.device.slice(0, 2) };
  expect(await failedChecks(snapshotOf("there.vhu", there))).toEqual(["trust"]);
});

test("a machine of a form that is not known, of another architecture, without a folder for its socket", async () => {
  const other = process.arch === "x64" ? "arm64" : "x64";
  expect(await failedChecks(snapshotOf("other.vhu", { name: "m" }, other))).toEqual([
    "architecture",
    "trust",
    "machine",
  ]);
  const lost = { name: "m", socket: "/nowhere/m.sock", memory: { "size-mib": 1 } };
  expect(await failedChecks(snapshotOf("lost.vhu", lost))).toEqual(["trust", "control socket"]);
});

test("a QEMU machine: program, disks and back-ends are looked at; nothing of the file is run", async () => {
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const script = [
    "#!/bin/sh",
    'case "$1" in',
    '--version) echo "QEMU emulator version 9.2.1 (Debian)";;',
    '-machine) echo "pc-q35-9.2  a machine";;',
    '-cpu) echo "  qemu64  a CPU";;',
    "esac",
  ].join("\n");
  writeFileSync(join(bin, "qemu-system-test"), script, { mode: 0o755 });
  const disk = join(folder, "vm.img");
  writeFileSync(disk, "content");
  const machine = (executable: string) => ({
    ...{ kind: "qemu", name: "vm", version: "10.0.2", package: "", machineType: "pc-q35-10.0" },
    ...{ cpuType: "qemu64-x86_64-cpu", cpuCount: 2, memoryBytes: 0, runState: "running", executable },
    virtioDevices: [{ type: "vhost-user-fs", path: "/machine/x", features: [], chardev: "c0" }],
    sockets: [{ chardev: "c0", path: join(folder, "none.sock") }],
    disks: [
      { device: "d0", path: disk, format: "raw", sizeBytes: 7, readOnly: false, inode: "1", modifiedNs: "1" },
    ],
  });
  const env = { PATH: `${bin}:${process.env.PATH}` };
  const checks = async (executable: string) => {
    const path = snapshotOf("qemu.vhu", machine(executable));
    const { stdout } = await runVhu(["snapshot", "inspect", path, "--json"], { env });
    const all = JSON.parse(stdout).checks as { name: string; ok: boolean; detail: string }[];
    return new Map(all.map(({ name, ok, detail }) => [name, { ok, detail }]));
  };
  const here = await checks("/usr/bin/qemu-system-test");
  expect(here.get("QEMU")?.detail).toContain("is 9.2.1, older than the 10.0.2");
  expect(here.get("machine type")?.ok).toBe(false);
  expect(here.get("CPU")).toEqual({ ok: true, detail: "qemu64, 2 of them" });
  expect(here.get("disk d0")?.ok).toBe(false);
  expect(here.get("back-end c0")?.ok).toBe(false);
  expect(here.get("command line")?.ok).toBe(false);
  writeFileSync(join(bin, "evil"), `#!/bin/sh\ntouch ${join(folder, "was-run")}\n`, { mode: 0o755 });
  const evil = await checks(join(bin, "evil"));
  expect(evil.get("QEMU")?.detail).toContain("evil is not installed here");
  expect(() => readFileSync(join(folder, "was-run"))).toThrow("ENOENT");
});

test("--device for a QEMU machine: a section by its name, or by a part of it that is the only one", async () => {
  const stream = Bun.gunzipSync(readFileSync(join(ROOT, "test", "fixtures", "qemu-10.0.2-q35.stream.gz")));
  const path = join(folder, "stream.vhu");
  using writer = SnapshotWriter.toFile(path, { writer: { name: "vhu", version: "0" } });
  const target = writer.writeQemuStream();
  target.write(stream);
  target.finish();
  writer.writeManifest({ machine: { kind: "qemu", name: "vm" }, devices: [], memory: { totalBytes: 0 } });
  writer.finish();
  expect((await inspect("--device", "cpu", path)).stdout).toContain("env.regs");
  expect((await inspect("--device", "mch", path)).stdout).toStartWith("0000:00:00.0/mch (");
  const several = await inspect("--device", "virtio", path);
  expect(several.status).toBe(2);
  expect(several.stderr).toContain("can be several: 0000:00:01.0/virtio-rng, 0000:00:02.0/virtio-net");
  expect((await inspect("--device", "none", path)).stderr).toContain("it has configuration, commands");
  const html = join(folder, "stream.html");
  const page = await inspect("--html", html, path);
  expect([page.status, page.stderr]).toEqual([0, ""]);
  expect(page.stdout).toContain("the snapshot's QEMU machine is invalid at");
  expect(readFileSync(html, "utf8")).toContain("env.regs");
  expect((await inspect("--html", "/nowhere/x.html", path)).status).toBe(1);
});

test("a state that is damaged is named on the page, and in the exit status; the rest is shown", async () => {
  const bytes = new Uint8Array(readFileSync(source));
  using reader = SnapshotReader.open(source);
  const { offset } = reader.records().find(({ typeName }) => typeName === "deviceState")!;
  bytes[offset + 60]! ^= 1;
  const path = join(folder, "state.vhu");
  writeFileSync(path, bytes);
  const page = await inspect(path);
  expect(page.status).toBe(3);
  expect(page.stdout).toContain("DAMAGED: the state of console0");
  expect(page.stdout).toContain("fixture: 1 device");
  expect((await inspect("--device", "console0", path)).status).toBe(3);
});
