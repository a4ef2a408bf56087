import { CompatibilityError } from "../../src/errors.ts";
import { O, openFile, sizeOf } from "../../src/sys/mod.ts";
import { digestImage } from "./digest-image.ts";
import type { WalkOptions } from "./image-blocks.ts";
import { openSealedImage } from "./sealed-image.ts";

/** What a snapshot says about a copy of a disk beside it. */
export interface StoredDiskCopy {
  readonly digest?: string | undefined;
  /** Base64. */
  readonly key?: string | undefined;
}

/**
 * Whether a copy is what it was when it was made. One of an earlier vhu has neither digest nor key: its size and time are all.
 * @throws CompatibilityError where its content is another, FormatError for a sealed one that was changed
 */
export async function checkDiskCopy(
  path: string,
  { digest, key }: StoredDiskCopy,
  options: WalkOptions = {},
): Promise<void> {
  using copy = openFile(path, O.RDONLY);
  if (key !== undefined) return openSealedImage(copy, undefined, keyOf(key), options);
  if (digest === undefined) return;
  const now = await digestImage(copy, sizeOf(copy), options);
  if (now === digest) return;
  throw new CompatibilityError(
    `changed since the save: the content of ${path} is another one. Put back what was there, or use --force`,
  );
}

/** The disk of a sealed copy as a new file. @throws FormatError where it was changed, SyscallError */
export async function unsealDiskCopy(
  path: string,
  key: string,
  to: string,
  options: WalkOptions = {},
): Promise<void> {
  using copy = openFile(path, O.RDONLY);
  using target = openFile(to, O.RDWR | O.CREAT | O.EXCL, 0o600);
  await openSealedImage(copy, target, keyOf(key), options);
}

function keyOf(base64: string): Uint8Array {
  return Buffer.from(base64, "base64");
}
