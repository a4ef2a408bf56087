import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseMachineConfig, readMachineFile } from "../../migrate/machine-file/mod.ts";
import { FormatError, UsageError } from "../../src/errors.ts";

const disk = { name: "d", type: "blk", image: "d.img" };
const base = { name: "m", socket: "m.sock", memory: { "size-mib": 1 } };

describe("machine file", () => {
  test("relative paths are relative to the file, defaults are filled in", () => {
    const folder = mkdtempSync(join(tmpdir(), "vhu-config-"));
    try {
      const file = join(folder, "m.toml");
      writeFileSync(
        file,
        'name = "m"\nsocket = "s"\n[memory]\nsize-mib = 2\n[[device]]\nname = "d"\ntype = "blk"\nimage = "x.img"\n',
      );
      const config = readMachineFile(file);
      expect(config.socket).toBe(join(folder, "s"));
      expect(config.device[0]).toMatchObject({
        image: join(folder, "x.img"),
        "queue-size": 128,
        readonly: false,
      });
      const ports = '[[device]]\nname = "c"\ntype = "console"\n[[device.port]]\npty = "../tty"\n';
      writeFileSync(file, `name = "m"\nsocket = "s"\n[memory]\nsize-mib = 2\n${ports}`);
      expect(readMachineFile(file).device[0]).toMatchObject({
        port: [{ pty: join(folder, "../tty"), name: "" }],
      });
      writeFileSync(file, "name = ");
      expect(() => readMachineFile(file)).toThrow(FormatError);
      expect(() => readMachineFile(join(folder, "none.toml"))).toThrow(UsageError);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    ["an unknown key", { ...base, speed: 1 }, "speed"],
    ["no memory", { name: "m", socket: "s" }, "memory"],
    [
      "neither image nor socket",
      { ...base, device: [{ name: "d", type: "blk" }] },
      'either "image" or "socket"',
    ],
    ["both image and socket", { ...base, device: [{ ...disk, socket: "s" }] }, 'either "image" or "socket"'],
    ["a name twice", { ...base, device: [disk, disk] }, "repeat"],
    [
      "a workload without its disk",
      { ...base, workload: [{ kind: "blocks", disk: "d" }] },
      'no blk device "d"',
    ],
    [
      "a log that is a disk",
      { ...base, device: [disk], workload: [{ kind: "blocks", disk: "d", log: "d" }] },
      'no console device "d"',
    ],
    [
      "more requests than the queue holds",
      {
        ...base,
        device: [{ ...disk, "queue-size": 16 }],
        workload: [{ kind: "blocks", disk: "d", "in-flight": 8 }],
      },
      "do not fit",
    ],
    [
      "a console with a file and ports",
      { ...base, device: [{ name: "c", type: "console", file: "f", port: [{ pty: "p" }] }] },
      'device.0: give one of "file", "port" and "socket"',
    ],
    [
      "a port with two ends",
      { ...base, device: [{ name: "c", type: "console", port: [{ pty: "p", file: "f" }] }] },
      'device.0.port.0: give one of "file", "socket" and "pty"',
    ],
    [
      "a port's name with a slash",
      { ...base, device: [{ name: "c", type: "console", port: [{ pty: "p", name: "a/b" }] }] },
      "no slash",
    ],
    [
      "ports that need more control messages than the queue holds",
      { ...base, device: [{ name: "c", type: "console", "queue-size": 2, port: [{ pty: "p" }] }] },
      '3 control messages need a larger "queue-size"',
    ],
    [
      "a network card without an end",
      { ...base, device: [{ name: "n", type: "net" }] },
      'device.0: give one of "tap", "stream", "stream-listen" and "socket"',
    ],
    [
      "a MAC address of five bytes",
      { ...base, device: [{ name: "n", type: "net", tap: "t", mac: "52:54:00:12:34" }] },
      "device.0.mac",
    ],
    [
      "a log with ports",
      {
        ...base,
        device: [disk, { name: "c", type: "console", port: [{ pty: "p" }] }],
        workload: [{ kind: "blocks", disk: "d", log: "c" }],
      },
      'workload.0.log: "c" has ports',
    ],
    [
      "two workloads on one device",
      {
        ...base,
        device: [{ name: "r", type: "rng" }],
        workload: [
          { kind: "random", source: "r" },
          { kind: "random", source: "r" },
        ],
      },
      'workload.1.source: two workloads use "r"',
    ],
    [
      "a workload on a device of another type",
      { ...base, device: [disk], workload: [{ kind: "frames", interface: "d" }] },
      'workload.0.interface: there is no net device "d"',
    ],
    ["a name that is a path", { ...base, name: "../m" }, "name"],
  ])("%s is refused with the field's path", (_what, value, message) => {
    expect(() => parseMachineConfig(value, "machine file")).toThrow(message);
  });
});
