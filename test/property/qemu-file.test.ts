import { expect, test } from "bun:test";
import fc from "fast-check";
import { encodeLibvirtHead, readLibvirtHead } from "../../migrate/qemu/files/libvirt-header.ts";
import { demandedCapabilities, readMappedRamHead } from "../../migrate/qemu/files/mapped-ram-head.ts";
import { sequentialOf } from "../../migrate/qemu/files/mapped-ram-reader.ts";
import { collectStream, joined } from "../support/collect-stream.ts";
import { mappedStreamOf } from "../support/mapped-stream.ts";
import { type StreamModel, streamOf } from "../support/qemu-stream.ts";

const PAGE = 4096;
const name = fc.oneof(
  fc.constantFrom("pc.ram", "../../x", "", "\ufeff", "\u{1f4a5}"),
  fc.string({ maxLength: 60 }),
);

const model: fc.Arbitrary<StreamModel> = fc
  .record({
    blocks: fc.uniqueArray(fc.record({ name, pages: fc.integer({ min: 1, max: 130 }) }), {
      ...{ minLength: 1, maxLength: 3 },
      selector: (block) => block.name,
    }),
    picks: fc.array(fc.tuple(fc.nat(), fc.nat(), fc.option(fc.integer({ min: 1, max: 255 }))), {
      maxLength: 12,
    }),
    devices: fc.array(fc.record({ name, instanceId: fc.nat(3), content: fc.uint8Array({ maxLength: 90 }) }), {
      ...{ minLength: 1, maxLength: 3 },
    }),
  })
  .map(({ blocks, picks, devices }) => ({
    machineType: "pc-q35-10.0",
    blocks: blocks.map((block) => ({ name: block.name, sizeBytes: block.pages * PAGE })),
    passes: [
      picks.map(([block, page, fill]) => {
        const at = block % blocks.length;
        const place = { block: at, offset: (page % blocks[at]!.pages) * PAGE };
        return fill === null ? place : { ...place, bytes: new Uint8Array(PAGE).fill(fill) };
      }),
    ],
    devices,
  }));

test("any mapped-ram file, wherever in a file it begins, is the sequential stream of the same machine", () => {
  fc.assert(
    fc.property(model, fc.nat(5000), (stream, base) => {
      const file = Buffer.concat([Buffer.alloc(base, 0xee), mappedStreamOf(stream, { base })]);
      const read = (offset: number, sizeBytes: number) => file.subarray(offset, offset + sizeBytes);
      expect(demandedCapabilities(file.subarray(base))).toEqual(["mapped-ram"]);
      const head = readMappedRamHead(read, base, file.length);
      const mapped = collectStream(joined(sequentialOf(head, read, file.length)));
      const sequential = collectStream(streamOf(stream));
      const content = (bytes: Uint8Array | "zero") => (bytes === "zero" ? new Uint8Array(PAGE) : bytes);
      const pages = (memory: typeof mapped.memory) =>
        new Map([...memory].map(([key, bytes]) => [key, content(bytes)]));
      expect(pages(mapped.memory)).toEqual(pages(sequential.memory));
      expect(mapped.parsed.blocks).toEqual(sequential.parsed.blocks);
      const states = ({ parsed: { sections, rest } }: typeof mapped) =>
        sections.map(({ offset, sizeBytes, ...section }) => ({
          ...section,
          content: new Uint8Array(rest.slice(offset, offset + sizeBytes)),
        }));
      expect(states(mapped)).toEqual(states(sequential));
    }),
    { numRuns: 60 },
  );
});

test("any XML and cookie come back from a virsh save header", () => {
  const text = fc
    .string({ unit: "binary", maxLength: 300 })
    .chain((value) => fc.constantFrom(value, `\ufeff${value}`))
    .map((value) => value.replaceAll("\0", ""));
  fc.assert(
    fc.property(text, fc.option(text, { nil: undefined }), fc.boolean(), (xml, cookie, wasRunning) => {
      const bytes = encodeLibvirtHead({ xml, cookie, wasRunning });
      const head = readLibvirtHead((offset, sizeBytes) => bytes.subarray(offset, offset + sizeBytes));
      expect(head).toEqual({ xml, cookie, wasRunning, format: "raw", streamOffset: bytes.length });
    }),
  );
});
