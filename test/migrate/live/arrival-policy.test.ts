import { expect, test } from "bun:test";
import { chmodSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeSocketFolder } from "../../../migrate/live/arrival.ts";
import { type ArrivalPolicy, checkArrival } from "../../../migrate/live/arrival-policy.ts";
import { ArrivalRoom } from "../../../migrate/live/arrival-room.ts";
import { hostFacts } from "../../../migrate/live/host-facts.ts";
import { offeredManifest } from "../../../migrate/live/offered-machine.ts";
import { FormatError, SyscallError } from "../../../src/errors.ts";
import { UnixListener } from "../../../src/sys/mod.ts";

const POLICY = { allow: ["machine"], roots: ["/srv/vm"], socketFolder: "/nowhere", vhu: ["vhu"] } as const;

/** What the policy says of a machine with these devices. */
function judge(...device: readonly object[]): { readonly ok: boolean; readonly detail: string } {
  return judgeBy(POLICY, ...device);
}

function judgeBy(policy: ArrivalPolicy, ...device: readonly object[]) {
  const checks = checkArrival(offerOf(device) as never, policy, new ArrivalRoom());
  return checks.find(({ name }) => name === "machine")!;
}

function offerOf(device: readonly object[], disks: readonly object[] = []) {
  const machine = { name: "m", socket: "/elsewhere/m.sock", memory: { "size-mib": 1 }, device };
  const { architecture } = hostFacts();
  return { type: "machine", name: "m", architecture, memoryBytes: 1 << 20, machine, disks };
}

/** What a manifest has beside the machine. */
const REST = { devices: [], memory: { totalBytes: 0 } };
const con = (port: object) => ({ name: "c", type: "console", port: [port] });
const net = (end: object) => ({ name: "n", type: "net", ...end });

test.each([
  ["an image", { name: "d", type: "blk", image: "/etc/disk" }],
  ["a console's file", { name: "c", type: "console", file: "/etc/log" }],
  ["a port's file", con({ file: "/etc/cron.d/x" })],
  ["a port's socket", con({ socket: "/run/x" })],
  ["a port's link", con({ pty: "/srv/vm/../x" })],
  ["a stream", net({ stream: "/run/x" })],
  ["a stream to listen at", net({ "stream-listen": "/run/x" })],
  ["a back-end", { name: "r", type: "rng", socket: "/run/x" }],
])("%s outside of the allowed folders does not arrive", (_what, device) => {
  expect(judge(device)).toMatchObject({
    ok: false,
    detail: expect.stringContaining("outside of what --root"),
  });
});

test("a tap is not for a sender to choose", () => {
  expect(judge(net({ tap: "tap0" }))).toMatchObject({ ok: false, detail: expect.stringContaining("tap0") });
});

test("what lies in the allowed folders arrives", () => {
  const devices = [con({ pty: "/srv/vm/tty" }), net({ stream: "/srv/vm/net" }), { name: "r", type: "rng" }];
  expect(judge(...devices)).toMatchObject({ ok: true });
});

test("what is built is what was offered: a manifest cannot bring in what the policy has not seen", () => {
  const machine = { name: "m", device: [{ name: "d", type: "blk", image: "/srv/vm/disk" }] };
  const offer = { type: "machine", machine } as const;
  const other = { ...machine, device: [{ name: "d", type: "blk", image: "/etc/shadow" }] };
  expect(offeredManifest(offer, { ...REST, machine: structuredClone(machine) }).machine).toEqual(machine);
  expect(() => offeredManifest(offer, { ...REST, machine: other })).toThrow(FormatError);
  expect(() => offeredManifest(offer, REST)).toThrow("is not the one that was offered");
  expect(() => offeredManifest(offer, { machine })).toThrow("the manifest is invalid");
});

test("a link does not lead out of the allowed folders, and files beside them are not told about", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    writeFileSync(join(root, "disk"), "x");
    symlinkSync("/etc/passwd", join(root, "out"));
    symlinkSync("/nowhere/else", join(root, "dangling"));
    symlinkSync("/etc", join(root, "folder"));
    const image = (name: string) => ({ name: "d", type: "blk", image: join(root, name) });
    const policy = { ...POLICY, roots: [root] };
    const okOf = (device: object) => judgeBy(policy, device).ok;
    expect(["disk", "new", "out", "dangling", "folder/passwd"].map((name) => okOf(image(name)))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
    const disks = [{ path: "/etc/passwd", sizeBytes: 1 }];
    const devices = [{ name: "d", type: "blk", image: "/etc/passwd" }];
    const { detail } = checkArrival(offerOf(devices, disks) as never, policy, new ArrivalRoom()).at(-1)!;
    expect(detail).toBe("/etc/passwd is outside of what --root allows");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

/** What is said about the disks, where the offer says something else than the machine. */
function disksOf(
  root: string,
  device: readonly object[],
  disks: readonly object[],
  room = new ArrivalRoom(),
) {
  const policy = { ...POLICY, roots: [root], diskMaxBytes: 10 };
  const checks = checkArrival(offerOf(device, disks) as never, policy, room);
  return checks.filter(({ name, ok }) => name === "disk" && !ok).map(({ detail }) => detail);
}

test("disks are those of the machine, whatever the offer says: each is looked at, and counts", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    const [small, large] = [join(root, "small"), join(root, "large")];
    writeFileSync(small, "x");
    writeFileSync(large, "x".repeat(11));
    const blk = (image: string) => ({ name: "d", type: "blk", image });
    expect(disksOf(root, [blk(large)], [])).toEqual([
      `the machine uses ${large}, and it was offered 0 times`,
    ]);
    expect(disksOf(root, [], [{ path: small, sizeBytes: 1 }])).toEqual([
      `${small} was offered, and the machine does not use it`,
    ]);
    expect(disksOf(root, [blk(large)], [{ path: large, sizeBytes: 1 }])[0]).toContain("has 11 bytes; 10 may");
    const offered = [{ path: small, sizeBytes: 1 }];
    expect(disksOf(root, [blk(small)], offered)).toEqual([]);
    const room = new ArrivalRoom();
    const place = room.hold({ name: "other", memoryBytes: 0, disks: [small] });
    expect(disksOf(root, [blk(small)], offered, room)[0]).toContain("is a disk of other");
    place[Symbol.dispose]();
    expect(disksOf(root, [blk(small)], offered, room)).toEqual([]);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

const okOf = (name: string, policy: ArrivalPolicy, room: ArrivalRoom) =>
  checkArrival(offerOf([]) as never, policy, room).find((check) => check.name === name)!;

test("memory that others were promised is not there, but for what has come of it", () => {
  const room = new ArrivalRoom();
  using place = room.hold({ name: "x", memoryBytes: 2 ** 50, disks: [] });
  expect(okOf("memory", POLICY, room).ok).toBe(false);
  place.arrivedBytes = 2 ** 50;
  expect(okOf("memory", POLICY, room).ok).toBe(true);
});

test("a name is taken by an arrival, by who listens, by who listens unseen, and by a file; not by a socket that was left", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    const policy = { ...POLICY, socketFolder: root };
    const room = new ArrivalRoom();
    const path = join(root, "m.sock");
    const detail = () => okOf("name", policy, room);
    expect(detail().ok).toBe(true);
    using place = room.hold({ name: "m", memoryBytes: 0, disks: [] });
    expect(detail().detail).toContain("another of that name is arriving");
    place[Symbol.dispose]();
    const listener = UnixListener.listen(path);
    expect(detail().detail).toBe(`somebody listens at ${path}`);
    // By another name of its folder, the kernel's list does not have it.
    symlinkSync(root, join(root, "link"));
    const unseen = okOf("name", { ...policy, socketFolder: join(root, "link") }, room);
    expect(unseen.detail).toContain("from another network namespace");
    renameSync(path, join(root, "kept"));
    listener[Symbol.dispose]();
    renameSync(join(root, "kept"), path);
    expect(detail()).toMatchObject({ ok: true });
    rmSync(path);
    writeFileSync(path, "");
    expect(detail().detail).toContain("no socket");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("the states of all arrivals together have a limit, which is free again after each", () => {
  const room = new ArrivalRoom(100);
  using one = room.hold({ name: "a", memoryBytes: 0, disks: [] });
  const other = room.hold({ name: "b", memoryBytes: 0, disks: [] });
  one.takeState(60);
  other.takeState(40);
  expect(() => one.takeState(1)).toThrow("all machines that arrive");
  other[Symbol.dispose]();
  one.takeState(40);
});

test("a QEMU machine's manifest may tell that it has run since, and nothing else", () => {
  const disk = { path: "/srv/vm/d", modifiedNs: "1", isDirty: false };
  const machine = { kind: "qemu", runState: "running", commandLine: ["kvm"], disks: [disk] };
  const offer = { type: "qemu", machine } as const;
  const told = (change: object) => offeredManifest(offer, { ...REST, machine: { ...machine, ...change } });
  told({ runState: "postmigrate", disks: [{ ...disk, modifiedNs: "2", isDirty: true }], sections: [] });
  expect(() => told({ commandLine: ["kvm", "-kernel", "/etc/x"] })).toThrow("commandLine.1 differs");
  expect(() => told({ disks: [{ ...disk, path: "/etc/x" }] })).toThrow("disks.0.path differs");
  expect(() => told({ added: ["-device", "x"] })).toThrow("added differs");
  let deep: unknown = 1;
  for (let index = 0; index < 100_000; index += 1) deep = [deep];
  expect(() => told({ deep })).toThrow(FormatError);
});

test("a QEMU machine is looked at as what will be started: more memory than was offered does not arrive", () => {
  const judged = (...args: string[]) => {
    const machine = {
      ...{ kind: "qemu", name: "m", machineType: "q35", runState: "running", executable: "kvm" },
      ...{ virtioDevices: [], sockets: [], disks: [], commandLine: ["kvm", ...args] },
    };
    const policy = { ...POLICY, allow: ["qemu"], qemu: "kvm" } as const;
    const checks = checkArrival(
      { ...offerOf([]), type: "qemu", machine } as never,
      policy,
      new ArrivalRoom(),
    );
    return checks.find(({ name }) => name === "machine")!;
  };
  expect(judged("-m", "1").ok).toBe(true);
  expect(judged("-m", "64G").detail).toContain("would take 68719476736 bytes");
  expect(judged("-object", "memory-backend-ram,id=x,size=1T,prealloc=on").ok).toBe(false);
  expect(judged("-readconfig", "/srv/vm/x").ok).toBe(false);
});

test("sockets and logs go to no folder that another user can write", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    makeSocketFolder(root);
    chmodSync(root, 0o777);
    expect(() => makeSocketFolder(root)).toThrow("others can write it");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("an image that is copied here is used as what it was offered as", () => {
  const root = mkdtempSync(join(tmpdir(), "vhu-root-"));
  try {
    const path = join(root, "disk");
    const machine = {
      ...{ kind: "qemu", name: "m", machineType: "q35", runState: "running", executable: "kvm", disks: [] },
      ...{ virtioDevices: [], sockets: [], commandLine: ["kvm", "-drive", `file=${path},format=qcow2`] },
    };
    const judged = (format: string) => {
      const copy = { format, virtualBytes: 65536, usedBytes: 0, readOnly: false };
      const offer = { ...offerOf([], [{ path, sizeBytes: 0, copy }]), type: "qemu", machine };
      const policy = { ...POLICY, roots: [root], allow: ["qemu"], qemu: "kvm" } as const;
      return checkArrival(offer as never, policy, new ArrivalRoom()).find(({ name }) => name === "machine")!;
    };
    expect(judged("qcow2").ok).toBe(true);
    expect(judged("raw").detail).toContain("is used as qcow2, and offered as another format");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("a folder for sockets that cannot be made is an error of one arrival, not the end of the receiver", () => {
  expect(() => makeSocketFolder("/dev/null/vhu")).toThrow(SyscallError);
});

test("the back-ends of a QEMU machine are started from this host's programs, and a tap is not for a sender to choose", () => {
  const backend = (...words: string[]) => ({
    ...{ chardev: "c", socket: "/srv/vm/run/c.sock", type: "net", features: [] },
    commandLine: ["/elsewhere/vhu", "device", "run", "net", "--socket", "/srv/vm/run/c.sock", ...words],
  });
  const checksOf = (...words: string[]) => {
    const machine = {
      ...{ kind: "qemu", name: "m", machineType: "q35", runState: "running", executable: "kvm", disks: [] },
      ...{
        commandLine: ["kvm", "-name", "m"],
        virtioDevices: [],
        sockets: [],
        backends: [backend(...words)],
      },
    };
    const offer = { ...offerOf([]), memoryBytes: 1 << 30, type: "qemu", machine };
    return checkArrival(offer as never, { ...POLICY, qemu: "/bin/true" }, new ArrivalRoom());
  };
  const started = checksOf("--stream", "/srv/vm/run/cable");
  expect(started.find(({ name }) => name === "back-end c")).toMatchObject({ ok: true });
  const refused = checksOf("--tap", "tap0").find(({ name }) => name === "machine");
  expect(refused).toMatchObject({
    ok: false,
    detail: expect.stringContaining("start it at /srv/vm/run/c.sock first"),
  });
  const outside = checksOf("--stream", "/etc/cable").find(({ name }) => name === "machine");
  expect(outside).toMatchObject({ ok: false });
});
