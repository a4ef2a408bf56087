import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StateError } from "../../../src/errors.ts";
import { lockBytes, O, openFile } from "../../../src/sys/mod.ts";
import { header, IN, OK, out, room, setUpDisk } from "./blk-rig.ts";

let dir: string;
let path: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-blk-"));
  path = join(dir, "disk.raw");
  writeFileSync(path, new Uint8Array(4096));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const user = (readOnly = false) => setUpDisk(path, { lock: true, readOnly });

describe("the image's lock", () => {
  test("excludes a second writer, and names the file", () => {
    using _first = user();
    expect(user).toThrow(StateError);
    expect(user).toThrow(`the image ${path} is in use by another program`);
  });

  test("readers share it; a writer and a reader exclude each other", () => {
    {
      using _first = user(true);
      using _second = user(true);
      expect(() => user()).toThrow(/in use by another program/);
    }
    using _writer = user();
    expect(() => user(true)).toThrow(/is written to by another program/);
  });

  test("is given up while the device is suspended, and taken again when it goes on", () => {
    using first = user();
    first.queue.stop();
    first.device.enterSuspendedState();
    const second = user();
    expect(() => first.queue.start()).toThrow(StateError);
    second.queue.stop();
    second.device.enterSuspendedState();
    first.queue.start();
    expect(first.request([out(header(IN)), room(512), room(1)]).status).toBe(OK);
    expect(() => user()).toThrow(StateError);
    second[Symbol.dispose]();
  });

  test("ends with the device", () => {
    user()[Symbol.dispose]();
    using _next = user();
  });

  test("--no-lock neither takes nor minds it", () => {
    using _first = user();
    using second = setUpDisk(path, { lock: false });
    expect(second.request([out(header(IN)), room(512), room(1)]).status).toBe(OK);
  });

  test("a QEMU that writes, which marks bytes 101 and 201 for reading, excludes both kinds of ours", () => {
    using qemu = openFile(path, O.RDWR);
    expect(lockBytes(qemu, "read", 101, 1) && lockBytes(qemu, "read", 201, 1)).toBe(true);
    expect(() => user()).toThrow(StateError);
    expect(() => user(true)).toThrow(StateError);
    lockBytes(qemu, "none", 101, 1);
    // Now it only reads.
    user(true)[Symbol.dispose]();
  });
});
