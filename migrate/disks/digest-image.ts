import type { Fd } from "../../src/sys/mod.ts";
import { imageBlocks, type WalkOptions } from "./image-blocks.ts";

/**
 * "sha256-blocks:" and a hash of an image's content that does not depend on where its holes are: sha256 over the u64 index
 * (little-endian) and the bytes of each block of 1 MiB that is not all zeros, then over the image's size as u64.
 */
export async function digestImage(image: Fd, sizeBytes: number, options: WalkOptions = {}): Promise<string> {
  const hash = new Bun.CryptoHasher("sha256");
  for await (const { index, bytes } of imageBlocks(image, sizeBytes, options)) {
    hash.update(numberBytes(index)).update(bytes);
  }
  return `sha256-blocks:${hash.update(numberBytes(sizeBytes)).digest("hex")}`;
}

function numberBytes(value: number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
}
