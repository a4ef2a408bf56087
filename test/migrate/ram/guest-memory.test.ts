import { expect, test } from "bun:test";
import { GuestMemory, memoryPieces } from "../../../migrate/ram/mod.ts";
import { FormatError } from "../../../src/errors.ts";
import { IoVector, NativeBuffer, writeAt } from "../../../src/sys/mod.ts";

const SIZE_BYTES = 4 << 20;
const REGIONS = [0, 4].map((id) => ({ id, name: `ram${id}`, guestAddress: 0, sizeBytes: SIZE_BYTES }));

test("every region is filled, one after the other, and progress counts them together", async () => {
  using memory = GuestMemory.create(REGIONS);
  const seen: number[] = [];
  const targets: number[] = [];
  const source = {
    loadRegion: async (id: number, fd: number, options: { onProgress?: (done: number) => void } = {}) => {
      targets.push(fd);
      options.onProgress?.(id === 0 ? 4096 : 8192);
    },
  };
  await memory.fill(source, { onProgress: ({ done, total }) => seen.push(done / total) });
  expect(targets).toEqual([memory.fd(0).number, memory.fd(4).number]);
  expect(seen).toEqual([4096, SIZE_BYTES, SIZE_BYTES + 8192, 2 * SIZE_BYTES].map((x) => x / 2 / SIZE_BYTES));
});

test("a damaged extent ends it with the error of the source", async () => {
  using memory = GuestMemory.create(REGIONS);
  const source = {
    loadRegion: async (id: number) => {
      if (id === 4) throw new FormatError("a checksum does not hold", "extents", 12);
    },
  };
  expect(memory.fill(source)).rejects.toThrow("a checksum does not hold");
});

test("pieces are what was written, and holes are zeros that are not looked at", () => {
  using memory = GuestMemory.create(REGIONS);
  const buffer = new NativeBuffer(4096);
  buffer.bytes.fill(7);
  const vector = new IoVector(1);
  vector.push(buffer.address, 4096);
  expect(writeAt(memory.fd(0), vector, 1 << 20)).toBe(4096);
  const pieces = [...memoryPieces(memory.fd(0), SIZE_BYTES)].map((piece) => [
    piece.offset,
    piece.sizeBytes,
    "bytes" in piece,
  ]);
  expect(pieces).toEqual([
    [0, 1 << 20, false],
    [1 << 20, 4096, true],
    [(1 << 20) + 4096, SIZE_BYTES - (1 << 20) - 4096, false],
  ]);
});
