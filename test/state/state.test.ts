import { describe, expect, test } from "bun:test";
import { FormatError, UsageError } from "../../src/errors.ts";
import {
  decodeState,
  encodeState,
  StateDecoder,
  type StateHeader,
  sniffState,
  xxh3,
} from "../../src/state/mod.ts";

const header: StateHeader = {
  deviceType: "blk",
  version: 3,
  oldestCompatibleVersion: 2,
  features: 0x8000_0001_4000_0000n,
};
const join = (chunks: Iterable<Uint8Array>): Uint8Array => Buffer.concat([...chunks]);
const small = (): Uint8Array =>
  join(
    encodeState(header, [
      {
        name: "config",
        value: { readOnly: true, size: 1n << 40n, names: ["a", "é"], raw: Uint8Array.of(1, 2) },
      },
      { name: "bulk", bytes: [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4)] },
      { name: "empty", bytes: [] },
    ]),
  );

function failure(action: () => unknown): FormatError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(FormatError);
    return error as FormatError;
  }
  throw new Error("it was accepted");
}

describe("encodeState and decodeState", () => {
  test("give back header and sections, in order", () => {
    const state = decodeState(small());
    expect(state.header).toEqual(header);
    expect([...state.sections.keys()]).toEqual(["config", "bulk", "empty"]);
    const config = state.sections.get("config") as Record<string, unknown>;
    expect(config).toMatchObject({ readOnly: true, size: 1n << 40n, names: ["a", "é"] });
    expect([...(config.raw as Uint8Array)]).toEqual([1, 2]);
    expect(state.sections.get("bulk")).toEqual(Uint8Array.of(1, 2, 3, 4));
    expect(state.sections.get("empty")).toEqual(new Uint8Array(0));
  });

  test("the bytes of the preamble are as documented", () => {
    const bytes = small();
    expect(Buffer.from(bytes.subarray(0, 8)).toString()).toBe("VHUSTATE");
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    expect(view.getUint32(8, true)).toBe(1);
    const covered = 16 + view.getUint32(12, true);
    expect(view.getBigUint64(covered, true)).toBe(xxh3(bytes.subarray(0, covered)));
  });

  test("any way of cutting the input is the same to the decoder", () => {
    const bytes = small();
    for (const size of [1, 2, 7, 8, 16, 100]) {
      const cut = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.subarray(index * size, (index + 1) * size),
      );
      expect([...decodeState(cut).sections.keys()]).toEqual(["config", "bulk", "empty"]);
    }
  });

  test("binary values do not change when the input is used again", () => {
    const bytes = small();
    const { sections } = decodeState(bytes);
    bytes.fill(0xff);
    expect([...((sections.get("config") as { raw: Uint8Array }).raw as Uint8Array)]).toEqual([1, 2]);
  });

  test("1 GiB streams through without being held", () => {
    const chunk = new Uint8Array(1024 * 1024).fill(7);
    const chunks = function* () {
      for (let index = 0; index < 1024; index += 1) yield chunk;
    };
    let received = 0;
    const decoder = new StateDecoder({
      header: () => undefined,
      value: () => undefined,
      bytes: (_name, piece) => {
        received += piece.length;
        expect(piece.length).toBeLessThanOrEqual(1024 * 1024);
      },
    });
    Bun.gc(true);
    const before = process.memoryUsage().rss;
    for (const piece of encodeState(header, [{ name: "bulk", bytes: chunks() }])) decoder.write(piece);
    decoder.end();
    expect(received).toBe(1024 * 1024 * 1024);
    expect(process.memoryUsage().rss - before).toBeLessThan(128 * 1024 * 1024);
  });

  test("an encoder is pulled: nothing is asked of a device before its turn", () => {
    let asked = 0;
    const bytes = (function* () {
      asked += 1;
      yield Uint8Array.of(1);
    })();
    const encoder = encodeState(header, [{ name: "bulk", bytes }]);
    encoder.next();
    expect(asked).toBe(0);
    join(encoder);
    expect(asked).toBe(1);
  });

  test("what a state cannot carry is refused when it is written", () => {
    const encode = (value: unknown) => () => join(encodeState(header, [{ name: "x", value }]));
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    for (const value of [{ a: undefined }, new Date(), new Set([1]), { a: 1n << 70n }, cyclic]) {
      expect(encode(value)).toThrow(UsageError);
    }
    expect(() => join(encodeState({ ...header, oldestCompatibleVersion: 9 }, []))).toThrow(UsageError);
    expect(() => join(encodeState({ ...header, features: 1n << 64n }, []))).toThrow(UsageError);
    expect(() =>
      join(
        encodeState(header, [
          { name: "a", value: 1 },
          { name: "a", value: 2 },
        ]),
      ),
    ).toThrow(UsageError);
    expect(() => join(encodeState(header, [{ name: "", value: 1 }]))).toThrow(UsageError);
  });
});

describe("a damaged state", () => {
  test("is refused at every truncation", () => {
    const bytes = small();
    for (let length = 0; length < bytes.length; length += 1) {
      const error = failure(() => decodeState(bytes.subarray(0, length)));
      expect(error.section).not.toBe("");
      expect(error.offset).toBe(length);
    }
  });

  test("is refused at every flipped bit, with the place", () => {
    const bytes = small();
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const flipped = bytes.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      const error = failure(() => decodeState(flipped));
      expect(error.offset).toBeGreaterThanOrEqual(0);
    }
  });

  test("is refused with bytes after its end, and the decoder stays broken", () => {
    const bytes = small();
    expect(failure(() => decodeState([bytes, Uint8Array.of(0)])).message).toContain("follow the end");
    const decoder = new StateDecoder({
      header: () => undefined,
      value: () => undefined,
      bytes: () => undefined,
    });
    const first = failure(() => decoder.write(new Uint8Array(16)));
    expect(failure(() => decoder.write(bytes))).toBe(first);
    expect(failure(() => decoder.end())).toBe(first);
  });

  test("is refused above its limit", () => {
    const large = join(encodeState(header, [{ name: "bulk", bytes: [new Uint8Array(5 * 1024 * 1024)] }]));
    expect(failure(() => decodeState(large)).message).toContain("limit");
    expect(decodeState(large, 6 * 1024 * 1024).sections.size).toBe(1);
  });
});

test("sniffState knows what has a magic", () => {
  expect(sniffState(small())).toEqual({ format: "vhu-device-state" });
  expect(sniffState(Buffer.from("b1bb1d1b0bb1d1b000000001", "hex"))).toEqual({ format: "passt" });
  expect(sniffState(new Uint8Array(10))).toEqual({ format: "unknown" });
  expect(sniffState(new Uint8Array(0))).toEqual({ format: "unknown" });
});

test("msgpackr is loaded by the first state, not by the import", async () => {
  const script = `
    const { encodeState } = await import(${JSON.stringify(`${import.meta.dirname}/../../src/state/mod.ts`)});
    const loaded = () => Object.keys(require.cache).some((path) => path.includes("/msgpackr/"));
    const before = loaded();
    [...encodeState({ deviceType: "x", version: 1, oldestCompatibleVersion: 1, features: 0n }, [])];
    console.log(before, loaded());`;
  const child = Bun.spawnSync([process.execPath, "-e", script]);
  expect(child.stdout.toString().trim()).toBe("false true");
});
