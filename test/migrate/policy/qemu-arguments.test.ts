import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { qemuArguments, qemuMemoryBytes } from "../../../migrate/policy/mod.ts";

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
  ["a relative path in a global", "-global", "driver=virtio-net-pci,property=romfile,value=rom"],
  ["a short global", "-global", "virtio-net-pci.romfile=rom"],
  ["a global of a driver that is none", "-global", "x/y.vectors=1"],
  ["modules of a multiboot kernel", "-initrd", "/srv/vm/a,/etc/shadow"],
  ["a module with arguments", "-initrd", "/srv/vm/link x"],
  ["a relative kernel in the machine", "-machine", "q35,kernel=vmlinuz"],
  ["the machine's own device tree", "-machine", "q35,dumpdtb=x"],
  ["confidential guests", "-machine", "q35,confidential-guest-support=c"],
  ["a device file of an accelerator, relative", "-accel", "kvm,device=kvm"],
  ["a CPU's property with a name", "-cpu", "max,lbr-fmt=file"],
  ["memory without end for a ring", "-chardev", "ringbuf,id=r,size=1073741824"],
  ["BIOS tables", "-smbios", "file=x"],
  ["firmware configuration", "-fw_cfg", "name=opt/x,file=x"],
  ["a folder of firmware", "-L", "/srv/vm"],
  ["a user to run as", "-runas", "root"],
  ["a loader", "-device", "loader,file=x"],
  ["a test of QEMU's own", "-qtest", "unix:x"],
  ["a trace file", "-trace", "file=x"],
  ["a relative memory file", "-object", "memory-backend-file,id=m,size=1M,mem-path=x"],
  ["a random source elsewhere", "-object", "rng-random,id=r,filename=x"],
  ["a filter to a file", "-object", "filter-dump,id=f,netdev=n,file=x"],
  ["TLS credentials", "-object", "tls-creds-x509,id=t,dir=x"],
  ["an authorization list", "-object", "authz-list-file,id=a,filename=x"],
  ["an input device", "-object", "input-linux,id=i,evdev=x"],
  ["a log of a console", "-chardev", "null,id=c,logfile=x"],
  ["tftp", "-netdev", "user,id=n,tftp=x"],
  ["a boot file", "-netdev", "user,id=n,bootfile=x"],
  ["a disk by its node's relative file", "-blockdev", "driver=raw,file.driver=file,file.filename=x"],
  ["a reopened image", "-drive", "file=/srv/vm/d,format=raw,file.filename=x"],
  ["a configuration file", "-set", "device.d.romfile=x"],
  ["a TPM", "-tpmdev", "passthrough,id=t,path=x"],
  ["a file system", "-fsdev", "local,id=f,path=x"],
  ["audio to a file", "-audiodev", "wav,id=a,path=x"],
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
    ...["-cpu", "Skylake-Server,+x,-y,hv-relaxed=on,hv-spinlocks=0x1fff,model-id=Intel(R) Xeon(R)"],
    ...["-global", "ICH9-LPC.disable_s3=1", "-global", "driver=cfi.pflash01,property=secure,value=on"],
    ...["-rtc", "base=utc,driftfix=slew", "-name", "guest=a/b,debug-threads=on", "-smp", "2,sockets=2"],
    ...[
      "-numa",
      "node,nodeid=0,cpus=0-1,cpus=3,memdev=m0",
      "-boot",
      "strict=on",
      "-overcommit",
      "mem-lock=off",
    ],
    ...["-uuid", "11111111-2222-3333-4444-555555555555"],
  ];
  expect(qemuArguments(recorded, policy)).toEqual([
    ...["-nodefaults", "-machine", "q35,memory-backend=mem,hpet=off", "-accel", "tcg", "-m", "512"],
    ...["-object", "memory-backend-memfd,id=mem,size=512M,share=on", "-append", "console=ttyS0 a=/b"],
    ...["-chardev", "file,id=s0,path=/srv/vm/a,,b", "-serial", "chardev:s0"],
    ...["-blockdev", "driver=raw,node-name=d,file.driver=file,file.filename=/srv/vm/d"],
    ...["-device", "virtio-blk-pci,drive=d,id=disk0"],
    ...["-drive", "if=virtio,format=raw,file=/srv/vm/disk.raw", "-kernel", "/srv/vm/k"],
    ...["-cpu", "Skylake-Server,+x,-y,hv-relaxed=on,hv-spinlocks=0x1fff,model-id=Intel(R) Xeon(R)"],
    ...["-global", "driver=ICH9-LPC,property=disable_s3,value=1"],
    ...["-global", "driver=cfi.pflash01,property=secure,value=on"],
    ...["-rtc", "base=utc,driftfix=slew", "-name", "guest=a/b,debug-threads=on", "-smp", "2,sockets=2"],
    ...[
      "-numa",
      "node,nodeid=0,cpus=0-1,cpus=3,memdev=m0",
      "-boot",
      "strict=on",
      "-overcommit",
      "mem-lock=off",
    ],
    ...["-uuid", "11111111-2222-3333-4444-555555555555"],
  ]);
});

test("the memory that QEMU will take is what its arguments say", () => {
  const of = (...args: string[]) => qemuMemoryBytes(args);
  expect(of("-m", "64")).toBe(64 << 20);
  expect(of("-m", "size=2G,slots=2")).toBe(2 ** 31);
  expect(
    of(
      "-object",
      "memory-backend-ram,id=a,size=1G",
      "-object",
      '{"qom-type":"memory-backend-memfd","id":"b","size":5}',
    ),
  ).toBe(2 ** 30 + 5);
  expect(of("-object", "iothread,id=a", "-smp", "2")).toBe(0);
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
