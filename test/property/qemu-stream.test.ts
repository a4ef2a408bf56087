import { expect, test } from "bun:test";
import fc from "fast-check";
import { type RamPiece, rebuildStream } from "../../migrate/qemu/stream-writer.ts";
import { type CollectedMemory, collectStream, joined } from "../support/collect-stream.ts";
import { type StreamModel, streamOf } from "../support/qemu-stream.ts";

const PAGE = 4096;
// Names are text from a stream: nothing in them means anything.
const name = fc.oneof(
  fc.constantFrom("pc.ram", "../../etc/passwd", "/rom@etc/acpi/tables", "", "\ufeff", "\u{1f4a5}"),
  fc.string({ maxLength: 60 }),
);

const model: fc.Arbitrary<StreamModel> = fc
  .record({
    machineType: fc.constantFrom("pc-q35-10.0", "virt-9.2"),
    blocks: fc.uniqueArray(fc.record({ name, pages: fc.integer({ min: 1, max: 6 }) }), {
      minLength: 1,
      maxLength: 4,
      selector: (block) => block.name,
    }),
    picks: fc.array(
      fc.array(fc.tuple(fc.nat(), fc.nat(), fc.option(fc.integer({ min: 1, max: 255 }))), { maxLength: 8 }),
      {
        minLength: 1,
        maxLength: 3,
      },
    ),
    devices: fc.array(fc.record({ name, instanceId: fc.nat(3), content: fc.uint8Array({ maxLength: 90 }) }), {
      minLength: 1,
      maxLength: 5,
    }),
  })
  .map(({ machineType, blocks, picks, devices }) => ({
    machineType,
    blocks: blocks.map((block) => ({ name: block.name, sizeBytes: block.pages * PAGE })),
    passes: picks.map((pass) =>
      pass.map(([block, page, fill]) => {
        const at = block % blocks.length;
        const offset = (page % blocks[at]!.pages) * PAGE;
        return fill === null
          ? { block: at, offset }
          : { block: at, offset, bytes: new Uint8Array(PAGE).fill(fill) };
      }),
    ),
    devices,
  }));

function expected({ passes }: StreamModel): CollectedMemory {
  return new Map(passes.flat().map(({ block, offset, bytes }) => [`${block}:${offset}`, bytes ?? "zero"]));
}

test("any stream, in any cut, is read as it was made, and again when it was rebuilt", () => {
  fc.assert(
    fc.property(model, fc.infiniteStream(fc.integer({ min: 1, max: 3000 })), (stream, cuts) => {
      const bytes = streamOf(stream);
      const { parsed, memory } = collectStream(bytes, () => cuts.next().value);
      expect(memory).toEqual(expected(stream));
      expect(parsed.machineType).toBe(stream.machineType);
      expect(parsed.blocks).toEqual(stream.blocks);
      const contents = parsed.sections.map(({ name, instanceId, offset, sizeBytes }) => ({
        name,
        instanceId,
        content: new Uint8Array(parsed.rest.slice(offset, offset + sizeBytes)),
      }));
      expect(contents).toEqual(
        stream.devices.map((device) => ({ ...device, content: new Uint8Array(device.content) })),
      );
      const rebuilt = joined(rebuildStream(parsed, (block) => pieces(block, memory)));
      const again = collectStream(rebuilt);
      expect(again.memory).toEqual(memory);
      expect(Buffer.compare(again.parsed.rest, parsed.rest)).toBe(0);
      expect(again.parsed.sections).toEqual(parsed.sections);
    }),
    { numRuns: 300 },
  );
});

function pieces(block: number, memory: CollectedMemory): RamPiece[] {
  return [...memory].flatMap(([key, bytes]) => {
    const [number, offset] = key.split(":").map(Number) as [number, number];
    if (number !== block) return [];
    return [bytes === "zero" ? { offset, sizeBytes: PAGE } : { offset, sizeBytes: PAGE, bytes }];
  });
}
