import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { qemuArguments, qemuDisks, requireAllowedChain } from "../../../migrate/policy/mod.ts";
import { parseQcow2References } from "../../../migrate/policy/qcow2-header.ts";
import { qemuCommand } from "../../../migrate/qemu/mod.ts";
import { FormatError } from "../../../src/errors.ts";
import { MAX_DISK_CHAIN } from "../../../src/limits.ts";
import { type Qcow2Names, qcow2Head } from "../../support/qcow2.ts";

let root: string;
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "vhu-chain-")));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const image = (name: string, names: Qcow2Names = {}) => {
  writeFileSync(join(root, name), qcow2Head(names));
  return join(root, name);
};
const look = (path: string, format = "qcow2") => requireAllowedChain({ path, format }, { roots: [root] });

test.each<[string, Qcow2Names]>([
  ["a file elsewhere", { backing: "/etc/shadow", format: "raw" }],
  ["a file elsewhere, by an image of version 2", { version: 2, backing: "/etc/shadow", format: "raw" }],
  ["a relative name that leads out", { backing: "../../etc/shadow", format: "raw" }],
  ["a name that climbs in the middle", { backing: "x/../../etc/shadow", format: "raw" }],
  ["JSON", { backing: 'json:{"driver":"file","filename":"/etc/shadow"}', format: "raw" }],
  ["a protocol", { backing: "nbd://host/x", format: "raw" }],
  ["an fd", { backing: "/proc/self/fd/3", format: "raw" }],
  ["a data file elsewhere", { dataFile: "/etc/shadow" }],
  ["a data file of this process", { dataFile: "/dev/fd/1" }],
])("an image in an allowed folder does not stand on %s", (_what, names) => {
  expect(() => look(image("disk", names))).toThrow("is not used");
});

test("the chain is followed to its end, and by links to where they lead", () => {
  image("base", { backing: "/etc/shadow", format: "raw" });
  image("middle", { backing: "base", format: "qcow2" });
  const top = image("top", { backing: join(root, "middle"), format: "qcow2" });
  expect(() => look(top)).toThrow(`${join(root, "base")} stands on /etc/shadow`);
  image("base");
  look(top);
  symlinkSync("/etc/passwd", join(root, "out"));
  expect(() => look(image("linked", { backing: "out", format: "raw" }))).toThrow("stands on out");
  mkdirSync(join(root, "folder"));
  look(image("folder/inner", { backing: "../base", format: "qcow2", dataFile: "data" }));
});

test("what a guest wrote on a raw disk is no image: neither the disk nor what it stands on is guessed", () => {
  const raw = image("raw", { backing: "/etc/shadow", format: "raw" });
  look(raw, "raw");
  look(image("over", { backing: "raw", format: "raw" }));
  expect(() => look(image("guessed", { backing: "raw" }))).toThrow("does not say what format");
  expect(() => look(raw, "qcow2")).toThrow("stands on /etc/shadow");
  expect(() => look(image("other", { backing: "raw", format: "vmdk" }))).toThrow("of the format vmdk");
});

test("a chain ends: circles, lengths, pipes and what is not there are refused", () => {
  image("a", { backing: "b", format: "qcow2" });
  expect(() => look(join(root, "a"))).toThrow("cannot be read here");
  image("b", { backing: "a", format: "qcow2" });
  expect(() => look(join(root, "a"))).toThrow("stands on itself");
  for (let index = 0; index <= MAX_DISK_CHAIN; index += 1) {
    image(`n${index}`, { backing: `n${index + 1}`, format: "qcow2" });
  }
  expect(() => look(join(root, "n0"))).toThrow(`more than ${MAX_DISK_CHAIN}`);
  Bun.spawnSync(["mkfifo", join(root, "pipe")]);
  expect(() => look(join(root, "pipe"))).toThrow("is no file");
  writeFileSync(join(root, "damaged"), "QFI");
  expect(() => look(join(root, "damaged"))).toThrow(FormatError);
});

test("the user's own recording, and a disk that the user gave, stand on what they like", () => {
  const path = image("disk", { backing: "/etc/shadow", format: "raw" });
  requireAllowedChain({ path, format: "qcow2" }, { roots: ["/"] });
  requireAllowedChain({ path, format: "qcow2" }, { roots: [], given: new Set([path]) });
});

test("every way to give QEMU a disk is looked through", () => {
  const disk = image("disk", { backing: "/etc/shadow", format: "raw" });
  const forms = [
    ["-drive", `if=virtio,file=${disk},format=qcow2`],
    ["-blockdev", `driver=qcow2,node-name=d,file.driver=file,file.filename=${disk}`],
    ["-blockdev", `driver=file,node-name=f,filename=${disk}`, "-blockdev", "driver=qcow2,file=f"],
    ["-blockdev", JSON.stringify({ driver: "qcow2", file: { driver: "file", filename: disk } })],
  ];
  for (const args of forms) {
    const machine = {
      ...{ kind: "qemu", name: "m", machineType: "q35", runState: "running", executable: "kvm" },
      ...{ virtioDevices: [], sockets: [], disks: [], commandLine: ["kvm", ...args] },
    };
    const start = () => qemuCommand(machine, { roots: [root], program: "kvm", socketPath: join(root, "m") });
    expect(start).toThrow("stands on /etc/shadow");
  }
  const raw = ["-drive", `file=${disk},format=raw`];
  expect(qemuDisks(qemuArguments(raw, { roots: [root] }))).toEqual([{ path: disk, format: "raw" }]);
});

test("an image within another, or a key that is there twice, cannot be looked through", () => {
  const disk = image("disk");
  const stacked = [
    ...["-blockdev", `driver=raw,node-name=r,offset=65536,file.driver=file,file.filename=${disk}`],
    ...["-blockdev", "driver=qcow2,node-name=q,file=r"],
  ];
  expect(() => qemuArguments(stacked, { roots: [root] })).toThrow("in no file of its own");
  const twice = ["-drive", `file=${disk},format=raw,format=qcow2`];
  expect(() => qemuArguments(twice, { roots: [root] })).toThrow("format= is there twice");
});

test("a header is read as QEMU reads it", () => {
  const names = { backing: "base.raw", format: "raw", dataFile: "data.raw" };
  expect(parseQcow2References(qcow2Head(names))).toEqual({
    backing: { name: "base.raw", format: "raw" },
    dataFile: "data.raw",
  });
  expect(parseQcow2References(qcow2Head())).toEqual({ backing: undefined, dataFile: undefined });
  const changed = (offset: number, value: number) => {
    const bytes = qcow2Head(names);
    bytes.writeUInt32BE(value, offset);
    return () => parseQcow2References(bytes);
  };
  expect(changed(4, 1)).toThrow("its version is 1");
  expect(changed(20, 40)).toThrow("clusters have 2^40 bytes");
  expect(changed(16, 1024)).toThrow("not in its first cluster");
  expect(changed(8, 1)).toThrow("not in its first cluster");
  expect(changed(100, 72)).toThrow("its header is cut off");
  expect(changed(108, 70_000)).toThrow("is cut off");
  expect(changed(120, 0xe2792aca)).toThrow("there twice");
});
