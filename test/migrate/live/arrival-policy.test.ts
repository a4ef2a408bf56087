import { expect, test } from "bun:test";
import { checkArrival } from "../../../migrate/live/arrival-policy.ts";
import { hostFacts } from "../../../migrate/live/host-facts.ts";
import { offeredManifest } from "../../../migrate/live/offered-machine.ts";
import { FormatError } from "../../../src/errors.ts";

const POLICY = { allow: ["machine"], roots: ["/srv/vm"], socketFolder: "/nowhere", vhu: ["vhu"] } as const;

/** What the policy says of a machine with these devices. */
function judge(...device: readonly object[]): { readonly ok: boolean; readonly detail: string } {
  const machine = { name: "m", socket: "/elsewhere/m.sock", memory: { "size-mib": 1 }, device };
  const { architecture } = hostFacts();
  const offer = { type: "machine", name: "m", architecture, memoryBytes: 1 << 20, machine, disks: [] };
  return checkArrival(offer as never, POLICY, new Set()).find(({ name }) => name === "machine")!;
}

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
  expect(offeredManifest(offer, { machine: structuredClone(machine) }).machine).toEqual(machine);
  expect(() => offeredManifest(offer, { machine: other })).toThrow(FormatError);
  expect(() => offeredManifest(offer, {})).toThrow(FormatError);
});
