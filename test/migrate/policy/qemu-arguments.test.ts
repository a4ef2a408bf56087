import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { qemuArguments } from "../../../migrate/policy/mod.ts";

const policy = { roots: ["/srv/vm"] };
const refused: readonly [string, ...string[]][] = [
  ["readconfig", "-readconfig", "/srv/vm/x"],
  ["a gdb server", "-gdb", "tcp::1234"],
  ["a log file", "-D", "/srv/vm/log"],
  ["a plugin", "-plugin", "/srv/vm/x.so"],
  ["a secret", "-object", "secret,id=s,data=(redacted)"],
  ["a script", "-netdev", "tap,id=n,script=/srv/vm/up"],
  ["a tap", "-netdev", "tap,id=n"],
  ["a forwarded port", "-netdev", "user,id=n,hostfwd=tcp::22-:22"],
  ["a program behind guestfwd", "-netdev", "user,id=n,guestfwd=tcp:1.2.3.4:1-cmd:/bin/sh"],
  ["an smb server", "-netdev", "user,id=n,smb=/srv/vm"],
  ["an fd", "-chardev", "socket,id=c,fd=3"],
  ["a TCP socket", "-chardev", "socket,id=c,host=1.2.3.4,port=1"],
  ["a pipe", "-chardev", "pipe,id=c,path=/srv/vm/p"],
  ["a socket elsewhere", "-chardev", "socket,id=c,path=/run/docker.sock"],
  ["a file above the root", "-chardev", "file,id=c,path=/srv/vm/../../etc/cron.d/x"],
  ["a folder that only begins like the root", "-kernel", "/srv/vm2/kernel"],
  ["a relative path", "-kernel", "kernel"],
  ["an fd as a path", "-initrd", "/proc/self/fd/3"],
  ["a host device", "-device", "vfio-pci,host=01:00.0"],
  ["an option ROM", "-device", "virtio-net-pci,romfile=/srv/vm/rom"],
  ["a key with a path in it", "-device", "virtio-net-pci,id=/etc/x"],
  ["a disk without a format", "-drive", "file=/srv/vm/disk"],
  ["a disk by a protocol", "-drive", "file=nbd:unix:/x,format=raw"],
  ["a folder as a disk", "-drive", "file=fat:rw:/srv/vm,format=raw"],
  ["a disk elsewhere", "-drive", "file=/etc/shadow,format=raw"],
  [
    "a JSON disk elsewhere",
    "-blockdev",
    '{"driver":"raw","file":{"driver":"file","filename":"/etc/shadow"}}',
  ],
  ["a network disk", "-blockdev", "driver=nbd,path=/srv/vm/x"],
  ["a JSON list", "-blockdev", '{"driver":"raw","file":["x"]}'],
  ["a kernel in the machine", "-machine", "q35,kernel=/etc/shadow"],
  ["a firmware file", "-machine", "q35,firmware=/srv/vm/x"],
  ["a serial port to a program", "-serial", "pipe:/x"],
  ["a display", "-display", "gtk"],
  ["a second dash", "--readconfig", "/srv/vm/x"],
  ["an image without an option", "/etc/shadow", ""],
  ["a path in a global", "-global", "driver=virtio-net-pci,property=romfile,value=/etc/shadow"],
  ["a device file of an accelerator", "-accel", "kvm,device=/srv/vm/x"],
  ["a picture at boot", "-boot", "splash=x"],
  ["a prototype's key", "-constructor", "x"],
];

test.each(refused)("refused by name: %s", (_, ...args) => {
  expect(() => qemuArguments(["-nodefaults", ...args], policy)).toThrow(args[0]!.replace(/^--/, "-"));
});

test("what is understood is built anew; what is vhu's business is left out", () => {
  const recorded = [
    ...["-nodefaults", "-S", "-daemonize", "-machine", "q35,memory-backend=mem,hpet=off", "-accel", "tcg"],
    ...[
      "-m",
      "512",
      "-object",
      "memory-backend-memfd,id=mem,size=512M,share=on",
      "-append",
      "console=ttyS0 a=/b",
    ],
    ...["-chardev", "file,id=s0,path=/srv/vm/a,,b", "-serial", "chardev:s0", "-qmp", "unix:/run/x,server=on"],
    ...["-blockdev", '{"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/srv/vm/d"}}'],
    ...["-device", '{"driver":"virtio-blk-pci","drive":"d","id":"disk0"}', "-incoming", "defer"],
    ...["-drive", "if=virtio,format=raw,file=/srv/vm/disk.raw", "--kernel", "/srv/vm/k"],
  ];
  expect(qemuArguments(recorded, policy)).toEqual([
    ...["-nodefaults", "-machine", "q35,memory-backend=mem,hpet=off", "-accel", "tcg", "-m", "512"],
    ...["-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-append", "console=ttyS0 a=/b"],
    ...["-chardev", "file,id=s0,path=/srv/vm/a,,b", "-serial", "chardev:s0"],
    ...["-blockdev", "driver=raw,node-name=d,file.driver=file,file.filename=/srv/vm/d"],
    ...["-device", "virtio-blk-pci,drive=d,id=disk0"],
    ...["-drive", "if=virtio,format=raw,file=/srv/vm/disk.raw", "-kernel", "/srv/vm/k"],
  ]);
});

test("a link in an allowed folder does not lead out of it", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    symlinkSync("/etc", join(root, "folder"));
    symlinkSync("/etc/passwd", join(root, "disk.raw"));
    writeFileSync(join(root, "own.raw"), "");
    const kernel = (path: string) => qemuArguments(["-kernel", join(root, path)], { roots: [root] });
    expect(() => kernel("disk.raw")).toThrow("allowed folder");
    expect(() => kernel("folder/shadow")).toThrow("allowed folder");
    expect(kernel("own.raw")).toEqual(["-kernel", join(root, "own.raw")]);
  } finally {
    rmSync(root, { recursive: true });
  }
});
