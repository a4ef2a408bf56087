import { describe, expect, test } from "bun:test";
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { writeAll } from "../../../migrate/snapshot/file-io.ts";
import { SnapshotReader, SnapshotWriter } from "../../../migrate/snapshot/mod.ts";
import { removeLeftovers, temporaryName } from "../../../migrate/snapshot/temporary-name.ts";
import { SyscallError, UsageError } from "../../../src/errors.ts";
import { killSaves } from "../../support/kill-save.ts";
import {
  asyncFailureOf,
  failureOf,
  headerFields,
  MiB,
  manifest,
  PAGE,
  pages,
  temporaryFolder,
} from "./support.ts";

const ram = (sizeBytes: number) => [{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }];

describe("a writer that does not finish", () => {
  test("leaves what was there, and nothing else", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    writeFileSync(path, "old");
    {
      using writer = SnapshotWriter.toFile(path, headerFields);
      writer.writeMemoryMap(ram(4 * MiB));
      await writer.writeMemory(0, 0, crypto.getRandomValues(new Uint8Array(65536)));
      expect(readdirSync(folder.path)).toEqual(["a.vhu"]);
    }
    expect(readdirSync(folder.path)).toEqual(["a.vhu"]);
    expect(readFileSync(path, "utf8")).toBe("old");
  });

  test("is one that a full disk stopped", async () => {
    using folder = temporaryFolder();
    const mount = join(folder.path, "small");
    mkdirSync(mount);
    const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=1m", "vhu-test", mount]);
    if (mounted.exitCode !== 0) {
      console.log("skipped: a small tmpfs cannot be mounted here (needs root)");
      return;
    }
    try {
      const path = join(mount, "a.vhu");
      writeFileSync(path, "old");
      const random = new Uint8Array(4 * MiB);
      for (let at = 0; at < random.length; at += 65536)
        crypto.getRandomValues(random.subarray(at, at + 65536));
      const error = await asyncFailureOf(async () => {
        using writer = SnapshotWriter.toFile(path, headerFields);
        writer.writeMemoryMap(ram(random.length));
        await writer.writeMemory(0, 0, random);
        writer.writeManifest(manifest);
        writer.finish();
      });
      expect(error).toBeInstanceOf(SyscallError);
      expect(error.details).toMatchObject({ errno: "ENOSPC", path });
      expect(readdirSync(mount)).toEqual(["a.vhu"]);
      expect(readFileSync(path, "utf8")).toBe("old");
    } finally {
      Bun.spawnSync(["umount", mount]);
    }
  });

  test("is one in a folder that cannot be written", () => {
    using folder = temporaryFolder();
    const mount = join(folder.path, "fixed");
    mkdirSync(mount);
    const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "ro", "vhu-test", mount]);
    if (mounted.exitCode !== 0) return console.log("skipped: nothing can be mounted here (needs root)");
    try {
      const error = failureOf(() => SnapshotWriter.toFile(join(mount, "a.vhu"), headerFields));
      expect(error).toMatchObject({ errno: "EROFS", details: { path: join(mount, "a.vhu") } });
    } finally {
      Bun.spawnSync(["umount", mount]);
    }
  });

  test("is one whose disk fails half-way", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    writeFileSync(path, "old");
    for (const failing of [1, 2, 3, 4, 5]) {
      let count = 0;
      const error = await asyncFailureOf(async () => {
        using writer = SnapshotWriter.toFile(path, headerFields, {
          write: (fd, bytes, what) => {
            if (++count === failing) throw new SyscallError("write", "EIO", what);
            writeAll(fd, bytes, what);
          },
        });
        writer.writeMemoryMap(ram(MiB));
        await writer.writeMemory(0, 0, pages(256));
        writer.writeManifest(manifest);
        writer.finish();
      });
      expect(error).toMatchObject({ errno: "EIO" });
      expect(readdirSync(folder.path)).toEqual(["a.vhu"]);
      expect(readFileSync(path, "utf8")).toBe("old");
    }
  });

  test("is one that was killed, at any moment", async () => {
    const report = await killSaves(20261123, 20);
    expect(report.whole + report.none).toBe(20);
    expect(report.whole).toBeGreaterThan(5);
  }, 60_000);

  test("leaves no names behind that the next one does not take away", () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    const mine = temporaryName(path);
    const dead = mine.replace(/-\d+-(\d+-\d+\.tmp)$/, "-4194305-$1");
    const elsewhere = dead.replace(/[0-9a-f]{8}(-\d+-\d+-\d+\.tmp)$/, "00000000$1");
    for (const name of [mine, dead, elsewhere]) writeFileSync(name, "");
    expect(readdirSync(folder.path)).toHaveLength(3);
    removeLeftovers(path);
    expect(readdirSync(folder.path).sort()).toEqual([elsewhere, mine].map((name) => basename(name)).sort());
  });

  test("is one whose device is full or whose reader is gone", () => {
    const full = openSync("/dev/full", "w");
    const error = failureOf(() => SnapshotWriter.toFd(full, headerFields));
    expect(error).toMatchObject({ call: "write", errno: "ENOSPC" });
    closeSync(full);
    using folder = temporaryFolder();
    const fifo = join(folder.path, "fifo");
    Bun.spawnSync(["mkfifo", fifo]);
    const both = openSync(fifo, "r+");
    const write = openSync(fifo, "w");
    closeSync(both);
    expect(failureOf(() => SnapshotWriter.toFd(write, headerFields))).toMatchObject({ errno: "EPIPE" });
    closeSync(write);
  });
});

test("a writer closes its file, finished or not", () => {
  using folder = temporaryFolder();
  const openFiles = () => readdirSync("/proc/self/fd").length;
  const before = openFiles();
  for (const isFinished of [true, false]) {
    using writer = SnapshotWriter.toFile(join(folder.path, "a.vhu"), headerFields);
    writer.writeManifest(manifest);
    if (isFinished) writer.finish();
  }
  expect(openFiles()).toBe(before);
});

describe("a writer refuses", () => {
  const attempt = async (write: (writer: SnapshotWriter) => unknown, message: string) => {
    using folder = temporaryFolder();
    const error = await asyncFailureOf(async () => {
      using writer = SnapshotWriter.toFile(join(folder.path, "a.vhu"), headerFields);
      await write(writer);
      writer.finish();
    });
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toContain(message);
    expect(readdirSync(folder.path)).toEqual([]);
  };

  test.each<[string, (writer: SnapshotWriter) => unknown, string]>([
    ["to leave out the manifest", () => undefined, "manifest"],
    ["memory of an unknown region", (writer) => writer.writeMemory(3, 0, pages(1)), "region 3"],
    [
      "half pages",
      (writer) => {
        writer.writeMemoryMap(ram(MiB));
        return writer.writeMemory(0, 0, new Uint8Array(100));
      },
      "whole pages",
    ],
    [
      "memory beyond its region",
      (writer) => {
        writer.writeMemoryMap(ram(MiB));
        writer.writeHole(0, MiB, PAGE);
      },
      "whole pages",
    ],
    [
      "memory that is missing",
      (writer) => {
        writer.writeMemoryMap(ram(MiB));
        writer.writeHole(0, 0, MiB - PAGE);
        writer.writeManifest(manifest);
      },
      "4096 bytes of memory region 0 were never written",
    ],
    [
      "memory that comes twice",
      async (writer) => {
        writer.writeMemoryMap(ram(MiB));
        writer.writeHole(0, 0, MiB);
        await writer.writeMemory(0, 0, pages(1));
        writer.writeManifest(manifest);
      },
      "written twice",
    ],
    [
      "a state that is never finished",
      (writer) => {
        writer.writeManifest(manifest);
        writer.writeDeviceState(1).write(pages(1));
      },
      "never finished",
    ],
    [
      "a state that comes twice",
      (writer) => {
        writer.writeDeviceState(1).finish();
        writer.writeDeviceState(1);
      },
      "twice",
    ],
    [
      "an invalid manifest",
      (writer) => writer.writeManifest({ devices: [], memory: { totalBytes: -1 } }),
      "memory.totalBytes",
    ],
  ])("%s", (_name, write, message) => attempt(write, message));

  test("a target that is no file, and follows a symbolic link", () => {
    using folder = temporaryFolder();
    expect(failureOf(() => SnapshotWriter.toFile("/dev/null", headerFields))).toBeInstanceOf(UsageError);
    expect(failureOf(() => SnapshotWriter.toFile(folder.path, headerFields))).toBeInstanceOf(UsageError);
    expect(
      failureOf(() => SnapshotWriter.toFile(join(folder.path, "no", "a.vhu"), headerFields)),
    ).toMatchObject({
      errno: "ENOENT",
    });
    const [real, link] = [join(folder.path, "real.vhu"), join(folder.path, "link.vhu")];
    writeFileSync(real, "old");
    symlinkSync(real, link);
    using writer = SnapshotWriter.toFile(link, headerFields);
    writer.writeManifest(manifest);
    writer.finish();
    expect(readlinkSync(link)).toBe(real);
    using reader = SnapshotReader.open(real);
    expect(reader.manifest).toEqual(manifest);
  });
});
