import { expect, test } from "bun:test";
import fc from "fast-check";
import { decodeState, encodeState, StateDecoder } from "../../src/state/mod.ts";

const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const key = name.filter((text) => text !== "__proto__");
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.double({ noNaN: true }).map((number) => (number === 0 ? 0 : number)),
    fc.bigInt({ min: 1n << 53n, max: (1n << 64n) - 1n }),
    fc.string({ unit: "grapheme" }),
    fc.uint8Array({ maxLength: 50 }),
    fc.array(tie("value"), { maxLength: 6 }),
    fc.dictionary(key, tie("value"), { maxKeys: 6, noNullPrototype: true }),
  ),
}));
const header = fc
  .record({
    deviceType: name,
    version: fc.nat(),
    back: fc.nat(),
    features: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  })
  .map(({ back, ...rest }) => ({ ...rest, oldestCompatibleVersion: Math.max(0, rest.version - back) }));
const section = fc.oneof(
  fc.record({ name, value }),
  fc.record({ name, bytes: fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }) }),
);
const sections = fc.uniqueArray(section, { selector: (each) => each.name, maxLength: 6 });

/** Buffers and Uint8Arrays alike. */
function plain(thing: unknown): unknown {
  if (thing instanceof Uint8Array) return [...thing];
  if (Array.isArray(thing)) return thing.map(plain);
  if (typeof thing !== "object" || thing === null) return thing;
  return Object.fromEntries(Object.entries(thing).map(([each, member]) => [each, plain(member)]));
}

test("what is encoded is decoded, however it is cut", () => {
  fc.assert(
    fc.property(header, sections, fc.infiniteStream(fc.integer({ min: 1, max: 400 })), (head, list, cuts) => {
      const bytes = Buffer.concat([...encodeState(head, list)]);
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; ) {
        const size = cuts.next().value as number;
        chunks.push(bytes.subarray(at, at + size));
        at += size;
      }
      const state = decodeState(chunks);
      expect(state.header).toEqual(head);
      const expected = list.map((each) => [
        each.name,
        plain("bytes" in each ? Buffer.concat(each.bytes) : each.value),
      ]);
      expect([...state.sections].map(([each, content]) => [each, plain(content)])).toEqual(expected);
    }),
    { numRuns: 300 },
  );
});

test("no change of any byte, no cut and no addition is accepted", () => {
  fc.assert(
    fc.property(header, sections, fc.nat(), fc.integer({ min: 1, max: 255 }), (head, list, where, change) => {
      const bytes = Buffer.concat([...encodeState(head, list)]);
      const changed = Buffer.from(bytes);
      changed[where % bytes.length]! ^= change;
      for (const wrong of [
        changed,
        bytes.subarray(0, where % bytes.length),
        Buffer.concat([bytes, Buffer.of(change)]),
      ]) {
        const decoder = new StateDecoder({
          header: () => undefined,
          value: () => undefined,
          bytes: () => undefined,
        });
        expect(() => {
          decoder.write(wrong);
          decoder.end();
        }).toThrow();
      }
    }),
    { numRuns: 300 },
  );
});
