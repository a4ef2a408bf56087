import { afterAll, afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LocalPrograms, loadPlan, type QemuMachine } from "../../../migrate/mod.ts";
import { CompatibilityError, StateError, UsageError } from "../../../src/errors.ts";
import { connectUnix, UnixListener } from "../../../src/sys/mod.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-lp-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const listed = join(tmpdir(), `vhu-lp-programs-${process.pid}.toml`);
writeFileSync(listed, 'qemu-storage-daemon = ["/usr/bin/qemu-storage-daemon"]\n');
afterAll(() => rmSync(listed));
const programs = new LocalPrograms(["bun", "vhu.ts"], listed);

function machineOf(change: Partial<QemuMachine> = {}): QemuMachine {
  return {
    ...{ kind: "qemu", name: "m", version: "10.0.2", package: "p", machineType: "pc-q35-10.0" },
    ...{ cpuType: "qemu64", cpuCount: 1, memoryBytes: 1 << 20, runState: "running" },
    executable: "/usr/bin/qemu-system-x86_64",
    workingFolder: dir,
    monitor: join(dir, "qmp"),
    commandLine: [
      ...["qemu-system-x86_64", "-nodefaults", "-chardev", "socket,id=mon0,path=m,server=on,wait=off"],
      ...["-mon", "chardev=mon0,mode=control", "-chardev", "socket,id=c0,path=blk.sock"],
      ...[
        "-device",
        "vhost-user-blk-pci,chardev=c0,id=v0",
        "-device",
        "vmgenid,guid=11111111-2222-3333-4444-555555555555",
      ],
      ...[
        "-blockdev",
        "driver=file,node-name=f0,filename=a.raw",
        "-blockdev",
        "driver=raw,node-name=d0,file=f0",
      ],
      ...["-device", '{"driver":"virtio-blk-pci","id":"gone","drive":"d0"}'],
    ],
    virtioDevices: [],
    sockets: [],
    backends: [
      {
        ...{ chardev: "c0", socket: "blk.sock", type: "blk", features: [], workingFolder: dir },
        commandLine: [
          "vhu",
          "device",
          "run",
          "blk",
          "--socket",
          "blk.sock",
          "--image",
          "b.raw",
          "--control",
          "b.ctl",
        ],
      },
    ],
    disks: [],
    ...change,
  };
}

const plan = (change: Partial<QemuMachine> = {}, options: Partial<Parameters<typeof loadPlan>[1]> = {}) =>
  loadPlan(machineOf(change), { roots: ["/"], programs, program: "qemu", ...options });

test("back-ends and QEMU, with absolute paths and a new generation, and without the old monitor", () => {
  const { qemu, backends, notes } = plan();
  expect(qemu).toMatchObject({ program: "qemu", socketPath: join(dir, "qmp") });
  expect(qemu.args.join(" ")).not.toContain("mon0");
  expect(qemu.args).toContain(`socket,id=c0,path=${join(dir, "blk.sock")}`);
  expect(qemu.args).toContain("vmgenid,guid=auto");
  expect(qemu.args).toContain(`driver=file,node-name=f0,filename=${join(dir, "a.raw")}`);
  const socket = join(dir, "blk.sock");
  expect(backends).toEqual([
    {
      ...{ chardev: "c0", type: "blk", socket, connects: false, others: [], role: "vhu", staysOn: false },
      command: [
        ...["bun", "vhu.ts", "device", "run", "blk", "--socket", socket, "--image", join(dir, "b.raw")],
        ...["--control", join(dir, "b.ctl"), "--once"],
      ],
    },
  ]);
  expect(notes).toEqual([]);
});

test("one qemu-storage-daemon that serves two disks is started once, at both sockets, with the disks that they have now", () => {
  const commandLine = [
    ...["qemu-storage-daemon", "--daemonize", "--blockdev", "driver=file,node-name=f0,filename=a.raw"],
    ...["--blockdev", "driver=qcow2,node-name=f1,file.driver=file,file.filename=b.qcow2"],
    ...["--export", "type=vhost-user-blk,id=e0,node-name=f0,addr.type=unix,addr.path=s0,writable=on"],
    ...[
      "--export",
      '{"type":"vhost-user-blk","id":"e1","node-name":"f1","addr":{"type":"unix","path":"s1"}}',
    ],
  ];
  const record = (chardev: string, socket: string) => ({
    ...{ chardev, socket, type: "blk", features: [], workingFolder: dir, pid: 7, commandLine },
  });
  const base = machineOf();
  const words = base.commandLine!.map((word) => word.replace("path=blk.sock", "path=s0"));
  const change = {
    commandLine: [...words, "-chardev", "socket,id=c1,path=s1"],
    backends: [record("c0", "s0"), record("c1", "s1")],
  };
  const disks = [{ backend: "c1", from: [join(dir, "b.qcow2")], path: "/srv/new.qcow2", format: "qcow2" }];
  const { backends } = plan(change, { disks, runtimeFolder: "/run/two" });
  expect(backends).toEqual([
    {
      ...{ chardev: "c0", type: "blk", socket: "/run/two/c0", connects: false },
      ...{ others: [{ chardev: "c1", socket: "/run/two/c1" }], role: "qemu-storage-daemon", staysOn: true },
      command: [
        expect.stringMatching(/qemu-storage-daemon$/),
        ...["--blockdev", `driver=file,node-name=f0,filename=${join(dir, "a.raw")}`],
        ...["--blockdev", "driver=qcow2,node-name=f1,file.driver=file,file.filename=/srv/new.qcow2"],
        "--export",
        "type=vhost-user-blk,id=e0,node-name=f0,addr.type=unix,addr.path=/run/two/c0,writable=on",
        "--export",
        "type=vhost-user-blk,id=e1,node-name=f1,addr.type=unix,addr.path=/run/two/c1",
      ],
    },
  ]);
});

test("a runtime folder moves every socket, those of back-ends too", () => {
  const { qemu, backends } = plan({}, { runtimeFolder: "/run/two" });
  expect(qemu.socketPath).toBe("/run/two/qmp");
  expect(qemu.args).toContain("socket,id=c0,path=/run/two/c0");
  expect(backends[0]!.socket).toBe("/run/two/c0");
  expect(backends[0]!.command.join(" ")).toContain("--socket /run/two/c0");
  expect(backends[0]!.command.join(" ")).toContain("--control /run/two/c0-1");
  expect(() => plan({}, { runtimeFolder: `/${"x".repeat(120)}` })).toThrow(UsageError);
});

test("other disks: the node over a file gets the format, a back-end its image", () => {
  const from = [join(dir, "a.raw")];
  const { qemu, backends } = plan(
    {},
    {
      disks: [
        { from, path: "/mnt/a.qcow2", format: "qcow2" },
        { from: [join(dir, "b.raw")], path: "/mnt/b.raw", format: "raw", backend: "c0" },
      ],
    },
  );
  expect(qemu.args).toContain("driver=file,node-name=f0,filename=/mnt/a.qcow2");
  expect(qemu.args).toContain("driver=qcow2,node-name=d0,file=f0");
  expect(backends[0]!.command.join(" ")).toContain("--image /mnt/b.raw");
  const unknown = () => plan({}, { disks: [{ from: ["/x"], path: "/y", format: "raw" }] });
  expect(unknown).toThrow("not on the recorded command line");
});

test("what was given may lie outside the roots, what was recorded may not", () => {
  expect(() => plan({}, { roots: ["/srv"], socketPath: "/srv/q" })).toThrow(
    "no absolute path in an allowed folder",
  );
  const disks = [{ from: [join(dir, "a.raw")], path: "/mnt/a.raw", format: "raw" }];
  expect(() => plan({}, { roots: [dir], socketPath: "/srv/q", disks })).not.toThrow();
});

test("--set: properties by id, options of back-ends by chardev; an id that there is not", () => {
  const set = (id: string, key: string, value: string) => plan({}, { properties: [{ id, key, value }] });
  expect(set("v0", "num-queues", "2").qemu.args).toContain(
    "vhost-user-blk-pci,chardev=c0,id=v0,num-queues=2",
  );
  expect(set("c0", "num-queues", "2").backends[0]!.command.join(" ")).toContain("--num-queues 2");
  expect(() => set("v9", "x", "1")).toThrow(UsageError);
  expect(() => set("v0", "romfile", "/etc/x")).toThrow(CompatibilityError);
  expect(() => set("c0", "fd", "3")).toThrow("--fd");
});

test("what was plugged in is added, what was taken out is left out, overlays since the start are used", () => {
  const added = ["-device", "virtio-rng-pci,id=new0"];
  const file = join(dir, "a.raw");
  const top = join(dir, "a.vhu-1.qcow2");
  const disk = { device: "d", path: top, format: "qcow2", sizeBytes: 1, readOnly: false, files: [top, file] };
  const { qemu } = plan({ added, removed: ["gone"], disks: [disk] });
  expect(qemu.args.slice(-2)).toEqual(added);
  expect(qemu.args.join(" ")).not.toContain("id=gone");
  expect(qemu.args).toContain(`driver=file,node-name=f0,filename=${top}`);
  expect(qemu.args).toContain("driver=qcow2,node-name=d0,file=f0");
});

test("a back-end that waits is used, one that serves another VM is refused, one that nobody knows is asked for", () => {
  const unknown = { chardev: "c0", socket: "blk.sock", type: "blk", features: [] };
  expect(() => plan({ backends: [unknown] })).toThrow("start it yourself");
  expect(plan({}, { withoutBackends: true }).backends).toEqual([]);
  const path = join(dir, "blk.sock");
  using listener = UnixListener.listen(path);
  const { backends, notes } = plan({});
  expect(backends).toEqual([]);
  expect(notes.join()).toContain("listens already");
  using _client = connectUnix(path);
  using _server = listener.accept();
  expect(() => plan({})).toThrow(StateError);
});

test("a part of a file cannot become an overlay, nor can a file without a format over it", () => {
  const at = (...words: string[]) => ({ commandLine: ["qemu-system-x86_64", ...words] });
  const disks = [{ from: [join(dir, "a.raw")], path: "/mnt/a", format: "qcow2" }];
  const part = at("-blockdev", "driver=raw,node-name=d,offset=512,file.driver=file,file.filename=a.raw");
  expect(() => plan(part, { disks })).toThrow("a part of its file");
  const bare = at("-blockdev", "driver=file,node-name=d,filename=a.raw");
  expect(() => plan(bare, { disks })).toThrow("without a format");
  const drive = at("-drive", "if=virtio,file=a.raw,format=raw");
  expect(plan(drive, { disks }).qemu.args).toContain("if=virtio,file=/mnt/a,format=qcow2");
});
