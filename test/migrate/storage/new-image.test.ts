import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ImageIdentity, NewImage, removeImage } from "../../../migrate/storage/mod.ts";
import { StateError } from "../../../src/errors.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";
import { requirePeers } from "../../peers/mod.ts";

const peers = requirePeers(["qemu-img"]);
const DISK_BYTES = 3 << 20;

function withFolder<T>(work: (folder: string) => T): T {
  const folder = mkdtempSync(join(tmpdir(), "vhu-image-"));
  const clean = () => rmSync(folder, { recursive: true, force: true });
  const result = work(folder);
  if (result instanceof Promise) return result.finally(clean) as T;
  clean();
  return result;
}

function qemuImg(...args: string[]): { status: number; text: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync({ cmd: [...peers!["qemu-img"].command, ...args] });
  return { status: exitCode, text: `${stdout}${stderr}` };
}

/** Random writes and zeros, to an image and to what it should be. */
async function fill(image: NewImage, sizeBytes: number, seed: number): Promise<Uint8Array> {
  const random = randomNumbers(seed);
  const wanted = new Uint8Array(sizeBytes);
  for (let i = 0; i < 200; i++) {
    const offset = random(sizeBytes / 512) * 512;
    const size = Math.min(512 * (1 + random(i % 10 === 0 ? 2048 : 64)), sizeBytes - offset);
    if (random(4) === 0) {
      image.zero(offset, size);
      wanted.fill(0, offset, offset + size);
      continue;
    }
    const bytes = new Uint8Array(size).fill(1 + random(255));
    bytes[0] = random(256);
    image.write(offset, bytes);
    wanted.set(bytes, offset);
  }
  image.complete();
  await image.sync();
  return wanted;
}

test("a raw image is what was written", () =>
  withFolder(async (folder) => {
    const path = join(folder, "disk.raw");
    using image = NewImage.create({ path, format: "raw", virtualBytes: DISK_BYTES }, () => {});
    const wanted = await fill(image, DISK_BYTES, 1);
    expect(Buffer.compare(readFileSync(path), wanted)).toBe(0);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  }));

test.skipIf(peers === undefined).each([1, 2, 3])(
  "a qcow2 image is whole for qemu-img, and the same disk: seed %d",
  (seed) =>
    withFolder(async (folder) => {
      const [path, raw] = [join(folder, "disk.qcow2"), join(folder, "disk.raw")];
      using image = NewImage.create({ path, format: "qcow2", virtualBytes: DISK_BYTES }, () => {});
      expect(qemuImg("check", path)).toMatchObject({ status: 0 });
      writeFileSync(raw, await fill(image, DISK_BYTES, seed));
      expect(qemuImg("check", path)).toMatchObject({ status: 0 });
      const { status, text } = qemuImg("compare", "-f", "qcow2", "-F", "raw", path, raw);
      expect({ status, text }).toEqual({ status: 0, text: "Images are identical.\n" });
    }),
);

test.skipIf(peers === undefined)("a qcow2 image of 2 TiB that needs more than one block of counts", () =>
  withFolder(async (folder) => {
    const path = join(folder, "disk.qcow2");
    const virtualBytes = 2 * 2 ** 40;
    using image = NewImage.create({ path, format: "qcow2", virtualBytes }, () => {});
    // 40,000 clusters, each of one sector: a block counts 32,768.
    const sector = new Uint8Array(512).fill(7);
    for (let cluster = 0; cluster < 40_000; cluster++) image.write(cluster * 65_536, sector);
    image.write(virtualBytes - 512, sector);
    image.complete();
    expect(qemuImg("check", path)).toMatchObject({ status: 0 });
    expect(JSON.parse(qemuImg("info", "--output=json", path).text)["virtual-size"]).toBe(virtualBytes);
  }),
);

test("never over a file; and only the very file that was made is removed", () =>
  withFolder((folder) => {
    const path = join(folder, "disk");
    const noted: ImageIdentity[] = [];
    const outline = { path, format: "raw", virtualBytes: 4096 } as const;
    {
      using _ = NewImage.create(outline, (identity) => {
        expect(existsSync(path)).toBe(false);
        noted.push(identity);
      });
    }
    expect(() => NewImage.create(outline, () => {})).toThrow(StateError);
    removeImage({ ...noted[0]!, inode: "1" });
    expect(existsSync(path)).toBe(true);
    removeImage(noted[0]!);
    expect(existsSync(path)).toBe(false);
    removeImage(noted[0]!);
  }));
