/**
 * Fills FILE with SIZE bytes that look like a guest's memory: `… FILE SIZE`. Seven tenths are programs, libraries and texts
 * of this host, one after another; the rest are pages of those again, in runs of up to 64, as guests have them (12 to 44 %
 * of the pages were duplicates in those that were looked at).
 */
import { closeSync, type Dirent, openSync, readdirSync, readSync, writeSync } from "node:fs";
import { join } from "node:path";
import { randomNumbers } from "../../fuzz/mutate.ts";

const PIECE = 1 << 20;
const PAGE = 4096;
const MAX_RUN_PAGES = 64;
const FOLDERS = ["/usr/bin", "/usr/lib", "/usr/share", "/usr/include"];
const [path, size] = process.argv.slice(2) as [string, string];
const uniqueBytes = Math.floor((Number(size) * 0.7) / PIECE) * PIECE;
const random = randomNumbers(20261123);

/** The bytes of files, one after another, each from the start of a page; over and over where the host has too few. */
function* content(): Generator<Uint8Array, never> {
  for (;;) for (const folder of FOLDERS) yield* filesOf(folder);
}

function* filesOf(folder: string): Generator<Uint8Array, void> {
  for (const entry of entriesOf(folder)) {
    const file = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesOf(file);
    else if (entry.isFile()) yield* piecesOf(file);
  }
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch {
    return [];
  }
}

function* piecesOf(file: string): Generator<Uint8Array, void> {
  let fd: number;
  try {
    fd = openSync(file, "r");
  } catch {
    return;
  }
  for (let count = PIECE; count === PIECE; ) {
    const bytes = new Uint8Array(PIECE);
    count = readSync(fd, bytes, 0, PIECE, null);
    if (count > 0) yield bytes.subarray(0, Math.ceil(count / PAGE) * PAGE);
  }
  closeSync(fd);
}

const fd = openSync(path, "w+");
const pieces = content();
for (let at = 0; at < uniqueBytes; ) {
  const piece = pieces.next().value;
  const count = Math.min(piece.length, uniqueBytes - at);
  writeSync(fd, piece, 0, count, at);
  at += count;
}
const run = new Uint8Array(MAX_RUN_PAGES * PAGE);
for (let at = uniqueBytes; at < Number(size); ) {
  const count = Math.min((1 + random(MAX_RUN_PAGES)) * PAGE, Number(size) - at);
  readSync(fd, run, 0, count, random((uniqueBytes - run.length) / PAGE) * PAGE);
  writeSync(fd, run, 0, count, at);
  at += count;
}
