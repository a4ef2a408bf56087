import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { planDisks } from "../../bin/qemu/load-disks.ts";
import type { QemuMachine } from "../../migrate/mod.ts";
import { qcow2Head } from "../support/qcow2.ts";

let root: string;
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "vhu-disks-")));
  mkdirSync(join(root, "in"));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const machineWith = (disk: object) =>
  ({
    disks: [{ device: "d", format: "raw", sizeBytes: 1, readOnly: false, ...disk }],
  }) as unknown as QemuMachine;
const plan = (disk: object, roots = [join(root, "in")], options = {}) =>
  planDisks(machineWith(disk), join(root, "web.vhu"), roots, { force: true, ...options });

test("a snapshot from elsewhere has no overlay or copy made of, or beside, a file outside of the allowed folders", () => {
  expect(() => plan({ path: "/etc/shadow", frozen: true })).toThrow("/etc/shadow is not used");
  expect(() => plan({ path: "/etc/shadow", frozen: true, backend: "c" })).toThrow("/etc/shadow is not used");
  expect(() => plan({ path: "/etc/shadow" }, undefined, { overlay: root })).toThrow(
    "/etc/shadow is not used",
  );
  writeFileSync(join(root, "in", "x"), qcow2Head({ backing: "/etc/shadow", format: "raw" }));
  const image = { path: join(root, "in", "x"), frozen: true, format: "qcow2" };
  expect(() => plan(image)).toThrow("stands on /etc/shadow");
  // A copy beside the snapshot is where the user has put it; what is made of it goes where the user says, or into a root.
  mkdirSync(join(root, "web.vhu.disks"));
  writeFileSync(join(root, "web.vhu.disks", "copy"), "");
  const copy = { file: "web.vhu.disks/copy", fileBytes: 0, modifiedNs: "0" };
  expect(() => plan({ path: "/etc/x", copy })).toThrow("/etc/x.vhu-");
  expect(plan({ path: "/etc/x", copy }, undefined, { overlay: root }).steps.length).toBe(1);
  expect(plan({ path: join(root, "in", "d"), frozen: true }).steps.length).toBe(1);
  expect(plan({ path: "/srv/d", frozen: true }, ["/"]).steps.length).toBe(1);
});
