import { expect, test } from "bun:test";
import { checkDisks } from "../../../migrate/qemu/disk-care.ts";
import type { QemuMachine } from "../../../migrate/qemu/mod.ts";

const disk = { device: "d0", path: "/srv/a.raw", format: "raw", sizeBytes: 1, readOnly: false };
const machine = (change: object) =>
  ({ virtioDevices: [], disks: [disk], ...change }) as unknown as QemuMachine;
const fs = { type: "vhost-user-fs", path: "/p", chardev: "c1", features: [] };

test("a VM that goes on: what is advised would not be refused", () => {
  const own = checkDisks(machine({}), undefined, true);
  expect(own.ok).toBe(false);
  expect(own.detail).toContain("--disks include");
  const shared = checkDisks(machine({ virtioDevices: [fs] }), undefined, true);
  expect(shared.ok).toBe(false);
  expect(shared.detail).toContain("--disks external");
  expect(shared.detail).not.toContain("include");
  for (const care of ["stop", "external"] as const) {
    expect(checkDisks(machine({ virtioDevices: [fs] }), care, true).ok).toBe(true);
  }
  for (const care of ["include", "overlay"] as const) {
    expect(checkDisks(machine({ virtioDevices: [fs] }), care, true).ok).toBe(false);
  }
});

test("a foreign daemon's disk cannot be kept while the VM goes on, unless nobody can write to it", () => {
  const blk = { type: "vhost-user-blk", path: "/p", chardev: "c0", features: [] };
  const served = { ...disk, backend: "c0", isForeign: true };
  const of = (readOnly: boolean) => machine({ virtioDevices: [blk], disks: [{ ...served, readOnly }] });
  expect(checkDisks(of(false), "overlay", true).ok).toBe(false);
  expect(checkDisks(of(true), "overlay", true)).toMatchObject({ ok: true, detail: "none can be written" });
});
