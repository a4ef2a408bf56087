import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { backendArguments, LocalPrograms } from "../../../migrate/policy/mod.ts";

const policy = { roots: ["/srv/vm"], workingFolder: "/srv/vm" };
const BLK = ["/usr/bin/bun", "/opt/vhu/bin/vhu.ts", "device", "run", "blk"];
const QSD = ["/usr/bin/qemu-storage-daemon"];
const FS = ["/lib/ld.so", "--library-path", "/lib", "/usr/libexec/virtiofsd"];

const refused: readonly [string, ...string[]][] = [
  ["another program", "/usr/bin/socat", "EXEC:/bin/sh"],
  ["a shell's command", "sh", "-c", "vhu device run blk --fd 3"],
  ["another vhu command", "vhu", "machine", "run", "x"],
  ["a type that there is not", "vhu", "device", "run", "constructor"],
  ["an inherited fd", ...BLK, "--fd", "3"],
  ["an image elsewhere", ...BLK, "--image", "/etc/shadow"],
  ["an image above the root", ...BLK, "--image=../../etc/shadow"],
  ["an image by a protocol", ...BLK, "--image", "nbd:unix:/srv/vm/x"],
  ["an fd as an image", ...BLK, "--image", "/proc/self/fd/3"],
  ["no confinement", ...BLK, "--no-sandbox"],
  ["no lock", ...BLK, "--no-lock"],
  ["a socket elsewhere", ...BLK, "--socket", "/run/docker.sock"],
  ["a control socket elsewhere", ...BLK, "--control", "/etc/x"],
  ["a number that is none", ...BLK, "--num-queues", "1;x"],
  ["a flag with a value", ...BLK, "--direct=/etc/x"],
  ["a word with a path", ...BLK, "--id", "/etc/x"],
  ["an option as a word", ...BLK, "--id", "--image"],
  ["an option of another type", ...BLK, "--tap", "tap0"],
  ["a word by itself", ...BLK, "/etc/shadow"],
  ["an inherited tap", "vhu", "device", "run", "net", "--tap-fd", "3"],
  ["standard input", "vhu", "device", "run", "console", "--stdio"],
  ["a port's file elsewhere", "vhu", "device", "run", "console", "--port", "name=a,file=/etc/x"],
  ["a port's stdio", "vhu", "device", "run", "console", "--port", "name=a,stdio"],
  ["a folder elsewhere", ...FS, "--shared-dir", "/etc"],
  ["capabilities", ...FS, "--modcaps", "+sys_admin"],
  ["virtiofsd's fd", ...FS, "--fd", "3"],
  ["virtiofsd's old options", ...FS, "-o", "source=/etc"],
  ["a node elsewhere", ...QSD, "--blockdev", "driver=file,node-name=a,filename=/etc/shadow"],
  ["a node of another kind", ...QSD, "--blockdev", "driver=nbd,node-name=a,server.type=unix"],
  ["an export by another protocol", ...QSD, "--export", "type=fuse,id=e,node-name=a,mountpoint=/srv/vm/x"],
  ["an export at an fd", ...QSD, "--export", "vhost-user-blk,id=e,node-name=a,addr.type=fd,addr.str=3"],
  ["an export elsewhere", ...QSD, "--export", "vhost-user-blk,id=e,addr.type=unix,addr.path=/run/x"],
  ["an export without a place", ...QSD, "--export", "vhost-user-blk,id=e,node-name=a"],
  ["an object with a secret", ...QSD, "--object", "secret,id=s,file=/srv/vm/key"],
  ["a trace file", ...QSD, "--trace", "file=/etc/x"],
  ["an NBD server", ...QSD, "--nbd-server", "addr.type=inet,addr.host=::,addr.port=1"],
  ["a sandbox that there is not", ...FS, "--sandbox", "off"],
];

test.each(refused)("refused by name: %s", (_, ...recorded) => {
  const last = recorded.at(-1)!;
  expect(() => backendArguments(recorded, policy)).toThrow(last.split("=")[0]!);
  expect(() => backendArguments(recorded, { roots: [] })).toThrow("is not run");
});

test("what is understood is built anew: paths absolute, sockets where they are now, the program from elsewhere", () => {
  const relocate = (path: string) => path.replace("/srv/vm/", "/srv/vm/new/");
  const recorded = [...BLK, "--socket=a.sock", "--image", "disk.raw", "--direct", "--once", "--io", "sync"];
  expect(backendArguments(recorded, { ...policy, relocate })).toEqual({
    role: "vhu",
    args: [
      ...["device", "run", "blk", "--socket", "/srv/vm/new/a.sock", "--image", "/srv/vm/disk.raw"],
      ...["--direct", "--io", "sync", "--once"],
    ],
  });
  const console = [
    "vhu",
    "device",
    "run",
    "console",
    "--port",
    "name=log,file=log",
    "--port",
    "name=tty,pty",
  ];
  expect(backendArguments(console, policy).args).toEqual([
    ...[
      "device",
      "run",
      "console",
      "--port",
      "name=log,file=/srv/vm/log",
      "--port",
      "name=tty,pty",
      "--once",
    ],
  ]);
  const fs = [...FS, "--socket-path", "/srv/vm/fs", "--shared-dir", "/srv/vm/share", "--sandbox", "none"];
  expect(backendArguments(fs, policy)).toEqual({ role: "virtiofsd", args: fs.slice(4) });
});

test("a qemu-storage-daemon's nodes, threads and exports are built anew; its monitor is not", () => {
  const recorded = [
    ...[
      ...QSD,
      "--chardev",
      "socket,path=/run/m,id=m",
      "--monitor=chardev=m",
      "--daemonize",
      "--pidfile",
      "/run/p",
    ],
    ...[
      "--object",
      "iothread,id=t0",
      "--blockdev",
      "node-name=f,driver=file,filename=a,,b.raw,cache.direct=on",
    ],
    ...["--export", "vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=s,num-queues=2,iothread=t0"],
  ];
  const relocate = (path: string) => path.replace("/srv/vm/", "/srv/vm/new/");
  const built = backendArguments(recorded, { ...policy, relocate });
  expect(built).toEqual({
    role: "qemu-storage-daemon",
    args: [
      ...["--object", "iothread,id=t0"],
      ...["--blockdev", "driver=file,node-name=f,filename=/srv/vm/a,,b.raw,cache.direct=on"],
      "--export",
      "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=/srv/vm/new/s,num-queues=2,iothread=t0",
    ],
  });
  expect(backendArguments([...QSD, ...built.args], policy)).toEqual(built);
});

test("this user's own recording may weaken a back-end; a path that the user gave may lie anywhere", () => {
  expect(backendArguments([...BLK, "--no-sandbox"], { roots: ["/"] }).args).toContain("--no-sandbox");
  const given = new Set(["/mnt/other.raw"]);
  const image = [...BLK, "--image", "/mnt/other.raw"];
  expect(backendArguments(image, { ...policy, given }).args).toContain("/mnt/other.raw");
  expect(() => backendArguments(image, policy)).toThrow("allowed folder");
});

test("programs come from the user's list, or from where packages put them", () => {
  const dir = mkdtempSync(join(tmpdir(), "vhu-lp-"));
  try {
    const file = join(dir, "programs.toml");
    const programs = new LocalPrograms(["bun", "vhu.ts"], file);
    expect(programs.commandOf("vhu")).toEqual(["bun", "vhu.ts"]);
    writeFileSync(file, 'virtiofsd = ["/opt/ld.so", "/opt/virtiofsd"]\n');
    expect(programs.commandOf("virtiofsd")).toEqual(["/opt/ld.so", "/opt/virtiofsd"]);
    for (const text of ['virtiofsd = "virtiofsd"', "virtiofsd = [1]", "virtiofsd = []", "virtiofsd = ["]) {
      writeFileSync(file, text);
      expect(() => programs.commandOf("virtiofsd")).toThrow(file);
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
