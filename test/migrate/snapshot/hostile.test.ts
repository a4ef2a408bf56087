import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { createZstd, frameBoundBytes } from "../../../migrate/snapshot/compression.ts";
import { EXTENT_ENTRY_BYTES, type Extent, encodeExtent } from "../../../migrate/snapshot/extent.ts";
import { SnapshotReader } from "../../../migrate/snapshot/mod.ts";
import { RecordType } from "../../../migrate/snapshot/record.ts";
import type { RecordOutput } from "../../../migrate/snapshot/record-output.ts";
import { CompatibilityError } from "../../../src/errors.ts";
import { xxh3 } from "../../../src/state/mod.ts";
import {
  type Forgery,
  failureOf,
  forge,
  formatFailureOf,
  MiB,
  PAGE,
  pages,
  temporaryFolder,
} from "./support.ts";

const ram = (sizeBytes: number) => [{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }];
const zero = (offset: number, sizeBytes: number, passNumber = 0, regionId = 0): Extent => {
  return { regionId, passNumber, offset, sizeBytes, kind: "zero", skipBytes: 0 };
};

/** A batch record of `extents` and `frames`, as the format has it. */
function batch(
  output: RecordOutput,
  extents: readonly Extent[],
  frames: Uint8Array = new Uint8Array(0),
): void {
  const tableBytes = 8 + extents.length * EXTENT_ENTRY_BYTES;
  const payload = new Uint8Array(tableBytes + frames.length);
  const view = new DataView(payload.buffer);
  view.setUint32(0, extents.length, true);
  for (const [index, extent] of extents.entries()) encodeExtent(view, 8 + index * EXTENT_ENTRY_BYTES, extent);
  payload.set(frames, tableBytes);
  output.record(RecordType.extents, 1, 0n, payload);
}

/** One extent of data whose frame is `frame`, whatever it says of itself. */
function framed(output: RecordOutput, frame: Uint8Array, plainBytes: number, checksum: bigint): Extent {
  const offset = output.position + 24 + 8 + EXTENT_ENTRY_BYTES;
  const extent: Extent = {
    ...zero(0, plainBytes),
    kind: "data",
    frame: { offset, sizeBytes: frame.length, plainBytes, checksum },
  };
  batch(output, [extent], frame);
  return extent;
}

/** Opens the forged file and does `act`. */
function withForged<Result>(forgery: Forgery, act: (reader: SnapshotReader) => Result): Result {
  using folder = temporaryFolder();
  const path = join(folder.path, "forged.vhu");
  forge(path, forgery);
  using reader = SnapshotReader.open(path);
  return act(reader);
}

const livingOnly = (extents: readonly Extent[], sizeBytes = MiB): Forgery => ({
  regions: ram(sizeBytes),
  records: (output) => {
    batch(output, extents);
    return { extents };
  },
});

test("a forged file with nothing wrong is taken", () => {
  withForged(livingOnly([zero(0, MiB)]), (reader) => {
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  });
});

describe("extents that do not fit are refused", () => {
  test.each<[string, readonly Extent[], string]>([
    ["overlap", [zero(0, 2 * PAGE), zero(PAGE, MiB - PAGE)], "overlap"],
    ["gap", [zero(0, PAGE), zero(2 * PAGE, MiB - 2 * PAGE)], "gap"],
    ["short", [zero(0, PAGE)], "cover"],
    ["long", [zero(0, 2 * MiB)], "cover"],
    ["wrong region", [zero(0, MiB, 0, 9)], "region 9"],
    ["half a page", [zero(0, 100)], "whole pages"],
    ["absurd", [zero(0, 2 ** 52)], "cover"],
  ])("%s", (_name, extents, message) => {
    const error = formatFailureOf(() => withForged(livingOnly(extents), (reader) => reader.extents(0)));
    expect(error.message).toContain(message);
  });

  test("overlap within a pass in the records", () => {
    const forgery: Forgery = {
      regions: ram(MiB),
      records: (output) => {
        batch(output, [zero(0, MiB), zero(PAGE, PAGE)]);
        return { extents: [zero(0, MiB)] };
      },
    };
    const result = withForged(forgery, (reader) => reader.verify({ deep: true }));
    expect(result).toMatchObject({ ok: false });
    if (!result.ok) expect(result.problems[0]?.message).toContain("overlap in pass 0");
  });

  test("an index that lists something else than the records", () => {
    const forgery: Forgery = {
      regions: ram(MiB),
      records: (output) => {
        batch(output, [zero(0, MiB, 1)]);
        return { extents: [zero(0, MiB)] };
      },
    };
    const result = withForged(forgery, (reader) => reader.verify({ deep: true }));
    if (!result.ok) expect(result.problems[0]?.message).toContain("does not list the extents");
    expect(result.ok).toBe(false);
  });
});

describe("frames that lie are refused", () => {
  const frameOf = (plain: Uint8Array) => {
    const room = new Uint8Array(frameBoundBytes(plain.length));
    return room.slice(0, createZstd().compress(room, plain));
  };
  const reading = (frame: Uint8Array, plainBytes: number, checksum: bigint) =>
    formatFailureOf(() =>
      withForged(
        {
          regions: ram(plainBytes),
          records: (output) => ({ extents: [framed(output, frame, plainBytes, checksum)] }),
        },
        (reader) => [...reader.memory(0)],
      ),
    );

  test("one that holds more than it says: a bomb", () => {
    const zeros = new Uint8Array(8 * MiB);
    expect(reading(frameOf(zeros), MiB, xxh3(zeros)).section).toBe("memory region 0");
  });
  test("one that holds less", () => {
    expect(reading(frameOf(pages(1)), 2 * PAGE, xxh3(pages(1))).section).toBe("memory region 0");
  });
  test("one with other content", () => {
    expect(reading(frameOf(pages(1)), PAGE, xxh3(pages(1, 2))).message).toContain("checksum");
  });
  test("no frame at all", () => {
    expect(reading(pages(1).subarray(0, 100), PAGE, 0n).message).toContain("damaged");
  });
  test("one above the limit", () => {
    expect(reading(frameOf(new Uint8Array(2 * MiB)), 2 * MiB, 0n).message).toContain("outside the limits");
  });
  test("one beyond the records", () => {
    const wrong: Extent = {
      ...zero(0, MiB),
      kind: "data",
      frame: { offset: 2 ** 40, sizeBytes: 100, plainBytes: MiB, checksum: 0n },
    };
    const error = formatFailureOf(() => withForged(livingOnly([wrong]), (reader) => [...reader.memory(0)]));
    expect(error.message).toContain("outside the file");
  });
});

describe("absurd counts in the index are refused", () => {
  test.each([
    ["records", 8],
    ["streams", 12],
    ["extents", 16],
  ])("%s", (_name, at) => {
    for (const count of [0, 1000, 0xffff_ffff]) {
      const index = (payload: Uint8Array) => {
        new DataView(payload.buffer).setUint32(at as number, count, true);
        return payload;
      };
      if (count === 0 && at !== 8) continue;
      expect(formatFailureOf(() => withForged({ index }, () => undefined)).section).toBe("index");
    }
  });

  test("a state that is not what the index says of it", () => {
    const stream = {
      type: RecordType.deviceState,
      streamId: 3,
      chunkCount: 1,
      sizeBytes: 5,
      sha256: "00".repeat(32),
    };
    const forgery: Forgery = { records: () => ({ streams: [stream] }) };
    const error = formatFailureOf(() => withForged(forgery, (reader) => [...reader.deviceState(3)]));
    expect(error.section).toBe("device-state 3");
  });
});

describe("a record of a type that is not known", () => {
  const foreign = (type: number, flags: number): Forgery => ({
    records: (output) => {
      output.record(type, flags, 5n, Uint8Array.of(1, 2, 3));
      return {};
    },
  });

  test("is refused by name when it is critical", () => {
    for (const [type, flags, name] of [
      [0x4711, 1, '"type 18193"'],
      [RecordType.keys, 1, '"keys"'],
      [RecordType.extents, 3, "encrypted"],
      [RecordType.extents, 1 | 0x40, "flags 0x40"],
    ] as const) {
      const error = failureOf(() => withForged(foreign(type, flags), () => undefined));
      expect(error).toBeInstanceOf(CompatibilityError);
      expect(error.message).toContain(name);
    }
  });

  test("is skipped and listed when it is not", () => {
    for (const type of [0x4711, RecordType.device]) {
      withForged(foreign(type, 0x8000), (reader) => {
        const entry = reader.records().find((record) => record.type === type);
        expect(entry).toMatchObject({ isCritical: false, isEncrypted: false, id: 5n, payloadBytes: 3 });
        if (entry !== undefined) expect(reader.readRecord(entry)).toEqual(Uint8Array.of(1, 2, 3));
        expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
      });
    }
  });

  test("a signature after the index is one of these", () => {
    const trailer = (output: RecordOutput) => output.record(RecordType.signature, 0, 0n, new Uint8Array(64));
    withForged({ trailer }, (reader) => {
      expect(reader.records().map(({ typeName }) => typeName)).toEqual([
        "header",
        "manifest",
        "index",
        "signature",
        "end",
      ]);
    });
  });
});

test("more devices or streams than a machine can have are refused, with the limit", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "forged.vhu");
  const device = {
    name: "d",
    type: "blk",
    backend: { identity: "x" },
    features: "0x0",
    protocolFeatures: "0x0",
  };
  const devices = Array.from({ length: 4097 }, (_, id) => {
    return { id, ...device, queues: [], config: "", stateFormat: "x", stateBytes: 0 };
  });
  forge(path, { manifest: new TextEncoder().encode(JSON.stringify({ devices, memory: { totalBytes: 0 } })) });
  const error = formatFailureOf(() => SnapshotReader.open(path));
  expect([error.section, error.message]).toEqual(["manifest", expect.stringContaining("<=4096")]);
  const streams = Array.from({ length: 4099 }, (_, streamId) => {
    return { type: RecordType.deviceState, streamId, chunkCount: 0, sizeBytes: 0, sha256: "00".repeat(32) };
  });
  forge(path, { records: () => ({ streams }) });
  expect(formatFailureOf(() => SnapshotReader.open(path)).message).toContain("4099 streams");
});

test("JSON of more values than a machine can have is refused before anything is made of it; texts are no values", () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "forged.vhu");
  const withExtra = (extra: string) =>
    new TextEncoder().encode(`{"memory":{"totalBytes":0},"devices":[],"more":${extra}}`);
  for (const unit of ["[],", "0,", "{},"]) {
    forge(path, { manifest: withExtra(`[${unit.repeat(1 << 20)}0]`) });
    const error = formatFailureOf(() => SnapshotReader.open(path));
    expect([error.section, error.message]).toEqual([
      "manifest",
      expect.stringContaining("the limit is 1048576"),
    ]);
  }
  for (const text of [",".repeat(2 << 20), "[{".repeat(1 << 20), '\\"]'.repeat(1 << 20), "\\\\"]) {
    forge(path, { manifest: withExtra(`"${text}"`) });
    using reader = SnapshotReader.open(path);
    expect(reader.manifest).toMatchObject({ devices: [] });
  }
});

test("JSON that is nested without end is refused, with the limit", () => {
  for (const [type, name] of [
    [RecordType.manifest, "manifest"],
    [RecordType.parent, "parent"],
  ] as const) {
    const depth = 500_000;
    const nested = `{"memory":{"totalBytes":0},"devices":[],"root":${"[".repeat(depth)}${"]".repeat(depth)}}`;
    using folder = temporaryFolder();
    const path = join(folder.path, "forged.vhu");
    const text = new TextEncoder().encode(nested);
    forge(path, {
      ...(type === RecordType.manifest ? { manifest: text } : {}),
      records: (output) => {
        if (type !== RecordType.manifest) output.record(type, 1, 0n, text);
        return {};
      },
    });
    const error = formatFailureOf(() => SnapshotReader.open(path));
    expect([error.section, error.message]).toEqual([
      name,
      expect.stringContaining("more deeply than 64 levels"),
    ]);
  }
});
