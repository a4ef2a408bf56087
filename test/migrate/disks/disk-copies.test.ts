import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { checkDiskCopy, DiskCopies, unsealDiskCopy } from "../../../migrate/disks/mod.ts";
import { CompatibilityError, FormatError } from "../../../src/errors.ts";

let dir: string;
let image: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-dc-"));
  image = join(dir, "image");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const MIB = 1 << 20;
/** Its size, and what is written where. */
interface Image {
  readonly sizeBytes: number;
  readonly writes: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

const images: fc.Arbitrary<Image> = fc.record({
  sizeBytes: fc.oneof(fc.nat(2 * MIB), fc.constantFrom(0, 1, MIB, 2 * MIB)),
  writes: fc.array(
    fc.record({ at: fc.nat(2 * MIB), bytes: fc.uint8Array({ minLength: 1, maxLength: 600 }) }),
    {
      maxLength: 4,
    },
  ),
});

function contentOf({ sizeBytes, writes }: Image): Buffer {
  const content = Buffer.alloc(sizeBytes);
  for (const { at, bytes } of writes) if (at < sizeBytes) content.set(bytes.subarray(0, sizeBytes - at), at);
  return content;
}

async function copyOf(content: Buffer, isSealed: boolean) {
  writeFileSync(image, content);
  const copies = new DiskCopies(join(dir, `${crypto.randomUUID()}.vhu`), { isSealed });
  const made = await copies.add("disk", image, content.length);
  copies.keep();
  const stored = made.key === undefined ? { digest: await copies.digest(made) } : { key: made.key };
  return { ...made, stored };
}

test("a sealed copy opens to the same bytes, and no byte of it can be changed, taken away or added", async () => {
  await fc.assert(
    fc.asyncProperty(images, fc.nat(), fc.integer({ min: 1, max: 255 }), async (what, place, mask) => {
      const content = contentOf(what);
      const { path, key, stored } = await copyOf(content, true);
      const opened = join(dir, crypto.randomUUID());
      await unsealDiskCopy(path, key!, opened);
      expect(readFileSync(opened).equals(content)).toBe(true);
      rmSync(opened);
      const sealed = readFileSync(path);
      const at = place % sealed.length;
      const flipped = Buffer.from(sealed);
      flipped[at]! ^= mask;
      for (const bytes of [flipped, sealed.subarray(0, at), Buffer.concat([sealed, sealed.subarray(at)])]) {
        writeFileSync(path, bytes);
        await expect(checkDiskCopy(path, stored)).rejects.toThrow(FormatError);
      }
    }),
    { numRuns: 12, seed: 20261125 },
  );
});

test("frames of a sealed copy in another order, or of another disk of the same save, do not open", async () => {
  const content = Buffer.alloc(3 * MIB, 7);
  const { path, stored } = await copyOf(content, true);
  const sealed = readFileSync(path);
  const frame = MIB + 24;
  const [first, second] = [sealed.subarray(8, 8 + frame), sealed.subarray(8 + frame, 8 + 2 * frame)];
  const swapped = Buffer.concat([sealed.subarray(0, 8), second, first, sealed.subarray(8 + 2 * frame)]);
  const shorter = Buffer.concat([sealed.subarray(0, 8), first, sealed.subarray(sealed.length - 32)]);
  for (const bytes of [swapped, shorter]) {
    writeFileSync(path, bytes);
    await expect(checkDiskCopy(path, stored)).rejects.toThrow(FormatError);
  }
  const other = await copyOf(content, true);
  await expect(checkDiskCopy(other.path, stored)).rejects.toThrow("not this snapshot's");
});

test("a copy's digest is that of its content, wherever its holes are; any other byte is refused", async () => {
  await fc.assert(
    fc.asyncProperty(images, fc.nat(), async (what, place) => {
      const content = contentOf(what);
      const { path, stored } = await copyOf(content, false);
      await checkDiskCopy(path, stored);
      // As a file that is all data, and as one with every hole that it can have.
      writeFileSync(path, content);
      await checkDiskCopy(path, stored);
      truncateSync(path, 0);
      truncateSync(path, content.length);
      if (content.every((byte) => byte === 0)) await checkDiskCopy(path, stored);
      writeFileSync(path, Buffer.concat([content, Buffer.alloc(1)]));
      await expect(checkDiskCopy(path, stored)).rejects.toThrow(CompatibilityError);
      if (content.length === 0) return;
      content[place % content.length]! ^= 1;
      writeFileSync(path, content);
      await expect(checkDiskCopy(path, stored)).rejects.toThrow("another one");
    }),
    { numRuns: 12, seed: 20261125 },
  );
});

test("a copy of an earlier vhu, without a digest, is left to its size and time", async () => {
  const { path } = await copyOf(Buffer.alloc(10, 1), false);
  const { atime, mtime } = statSync(path);
  writeFileSync(path, Buffer.alloc(10, 2));
  utimesSync(path, atime, mtime);
  await checkDiskCopy(path, {});
});
