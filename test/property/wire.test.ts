import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  backendMessages,
  type Codec,
  checkReplyHeader,
  checkRequestHeader,
  crosvm2024BackendMessages,
  crosvm2024FrontendMessages,
  crosvmBackendMessages,
  decodeHeader,
  describeFeatures,
  encodeHeader,
  frontendMessages,
  type Message,
  protocolFeature,
} from "../../src/wire/mod.ts";
import { shapeOf } from "./wire-arbitraries.ts";
import { checkDecode } from "./wire-oracle.ts";

const RUNS = { numRuns: 200 };

const bodies: readonly (readonly [title: string, codec: Codec<unknown>])[] = [
  frontendMessages,
  backendMessages,
  crosvmBackendMessages,
  crosvm2024FrontendMessages,
  crosvm2024BackendMessages,
].flatMap((table) =>
  Object.values(table).flatMap((message: Message) => {
    const title = `${message.side} ${message.number} ${message.name}`;
    const request = [title, message.payload] as const;
    return message.reply === undefined ? [request] : [request, [`${title} reply`, message.reply] as const];
  }),
);

/** A valid payload with a few bytes changed and perhaps its end cut off or extended. */
const damaged = (codec: Codec<unknown>): fc.Arbitrary<Uint8Array> =>
  fc
    .tuple(
      shapeOf(codec).values,
      fc.array(fc.tuple(fc.nat({ max: 4095 }), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.constantFrom(0, 0, 0, -8, -1, 1, 32),
    )
    .map(([value, changes, growth]) => {
      const valid = codec.encode(value);
      const bytes = new Uint8Array(Math.max(0, valid.length + growth));
      bytes.set(valid.subarray(0, bytes.length));
      for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte;
      return bytes;
    });

describe("decode(encode(value)) is the value, and its size is known before", () => {
  test.each(bodies)("%s", (title, codec) => {
    fc.assert(
      fc.property(shapeOf(codec).values, (value) => {
        const bytes = codec.encode(value);
        expect(bytes.length).toBe(codec.sizeOf(value));
        expect(codec.decode(bytes, title)).toEqual(value);
      }),
      RUNS,
    );
  });
});

describe("any bytes decode to a value with the same bytes, or are refused by name and path", () => {
  test.each(bodies)("%s", (title, codec) => {
    const random = fc.uint8Array({ maxLength: Math.min(codec.maxBytes + 1, 300) });
    const exact = fc.uint8Array({ minLength: codec.minBytes, maxLength: codec.minBytes });
    const payloads = fc.oneof(damaged(codec), random, exact);
    fc.assert(
      fc.property(payloads, (payload) => {
        checkDecode(codec, payload, title);
      }),
      RUNS,
    );
  });
});

test("a header is what was encoded, and at most one of the two checks takes it", () => {
  const u32 = fc.nat({ max: 0xffff_ffff });
  fc.assert(
    fc.property(u32, fc.oneof(u32, fc.nat({ max: 31 })), u32, (request, flags, size) => {
      const view = new DataView(new ArrayBuffer(12));
      encodeHeader(view, request, flags, size);
      const header = decodeHeader(view);
      expect(header).toEqual({ request, flags, size });
      const takes = (check: () => void): boolean => {
        try {
          check();
          return true;
        } catch {
          return false;
        }
      };
      const asRequest = takes(() => checkRequestHeader(header));
      expect(asRequest).toBe((flags === 1 || flags === 9) && size <= 4096);
      expect(takes(() => checkReplyHeader(header, request))).toBe(flags === 5 && size <= 4096);
    }),
  );
});

test("a mask is described bit by bit", () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (mask) => {
      const bits = describeFeatures(mask, protocolFeature).map(
        (name) => protocolFeature[name as keyof typeof protocolFeature] ?? 1n << BigInt(name.slice(4)),
      );
      expect(bits.reduce((sum, bit) => sum | bit, 0n)).toBe(mask);
      expect(bits).toEqual([...bits].sort((a, b) => (a < b ? -1 : 1)));
    }),
  );
});
