import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeSocketFolder } from "../../../migrate/live/arrival.ts";
import { type ArrivalPolicy, checkArrival } from "../../../migrate/live/arrival-policy.ts";
import { hostFacts } from "../../../migrate/live/host-facts.ts";
import { offeredManifest } from "../../../migrate/live/offered-machine.ts";
import { FormatError, SyscallError } from "../../../src/errors.ts";

const POLICY = { allow: ["machine"], roots: ["/srv/vm"], socketFolder: "/nowhere", vhu: ["vhu"] } as const;

/** What the policy says of a machine with these devices. */
function judge(...device: readonly object[]): { readonly ok: boolean; readonly detail: string } {
  return judgeBy(POLICY, ...device);
}

function judgeBy(policy: ArrivalPolicy, ...device: readonly object[]) {
  const checks = checkArrival(offerOf(device) as never, policy, new Set());
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
    const { detail } = checkArrival(offerOf([], disks) as never, policy, new Set()).at(-1)!;
    expect(detail).toBe("/etc/passwd is outside of what --root allows");
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});

test("a folder for sockets that cannot be made is an error of one arrival, not the end of the receiver", () => {
  expect(() => makeSocketFolder("/dev/null/vhu")).toThrow(SyscallError);
});
