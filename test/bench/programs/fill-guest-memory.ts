/**
 * Fills FILE with SIZE bytes that look like a guest's memory: `… FILE SIZE`. A quarter of it is made of programs and
 * texts of this host with runs of zeros between them; the rest is that again, with one page in 64 changed.
 */
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { randomNumbers } from "../../fuzz/mutate.ts";

const PIECE = 1 << 20;
const PAGE = 4096;
const [path, size] = process.argv.slice(2) as [string, string];
const unit = Number(size) / 4;
const random = randomNumbers(20261123);

/** The bytes of files, one after another, over and over. */
function* content(): Generator<Uint8Array, never> {
  const folders = ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/share/perl", "/usr/include"];
  for (;;) {
    for (const folder of folders) yield* filesOf(folder);
    yield new Uint8Array(PIECE);
  }
}

function* filesOf(folder: string): Generator<Uint8Array, void> {
  let names: string[] = [];
  try {
    names = readdirSync(folder).sort();
  } catch {
    return;
  }
  for (const name of names) {
    const file = join(folder, name);
    if (!(statSync(file, { throwIfNoEntry: false })?.isFile() ?? false)) continue;
    const fd = openSync(file, "r");
    for (let isFull = true; isFull; ) {
      const bytes = new Uint8Array(PIECE);
      isFull = readSync(fd, bytes, 0, PIECE, null) === PIECE;
      yield bytes;
    }
    closeSync(fd);
  }
}

const fd = openSync(path, "w+");
const pieces = content();
for (let at = 0; at < unit; at += PIECE) {
  writeSync(fd, random(4) === 0 ? new Uint8Array(PIECE) : pieces.next().value, 0, PIECE, at);
}
const piece = new Uint8Array(PIECE);
for (let at = unit; at < Number(size); at += PIECE) {
  readSync(fd, piece, 0, PIECE, at % unit);
  for (let count = 0; count < 4; count += 1) {
    const start = random(PIECE / PAGE) * PAGE;
    for (let byte = start; byte < start + PAGE; byte += 16) piece[byte] = random(256);
  }
  writeSync(fd, piece, 0, PIECE, at);
}
