/**
 * Fills FILE with SIZE bytes of real guest memory: `… FILE SIZE [TWIN]`. Boots a guest of 1 GiB under QEMU, lets it unpack programs
 * and libraries of this host, read them and sort what it read, and keeps its memory; then that again and again up to SIZE, with a
 * change in each page that is not zero, so that it has the duplicates of one guest and no others.
 * TWIN gets the same with every second page of the copies left as it was.
 */
import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildGuest, startQemu } from "../../peers/mod.ts";

const MIB = 1 << 20;
const GUEST_MIB = 1024;
const FILES_MIB = 400;
const PAGE = 4096;
/** Where in a page of a copy it differs: 8 bytes. */
const CHANGED_AT = 1000;

const [path, size, twin] = process.argv.slice(2) as [string, string, string?];
const dir = mkdtempSync(join(tmpdir(), "vhu-record-"));
try {
  await record(dir, path);
  if (twin !== undefined) {
    copyFileSync(path, twin);
    repeat(twin, Number(size), 2 * PAGE);
  }
  repeat(path, Number(size), PAGE);
} finally {
  rmSync(dir, { recursive: true, force: true });
}

async function record(dir: string, path: string): Promise<void> {
  const archive = join(dir, "files.tar");
  const folders = ["/usr/bin", "/usr/lib"];
  const pack = `tar -cf - --sort=name ${folders.join(" ")} 2>/dev/null | head -c ${FILES_MIB}M > ${archive}`;
  Bun.spawnSync(["sh", "-c", pack]);
  const init = `
mount -o remount,size=100% /tmp
dd if=/dev/vda iflag=direct bs=1M 2>/dev/null | tar xf - -C /tmp 2>/dev/null
find /tmp -type f | sort > /tmp/list
strings /tmp/usr/bin/* 2>/dev/null | head -300000 | sort > /tmp/words
echo RECORDED
sleep 1000`;
  const guest = buildGuest({ dir, modules: ["virtio_blk"], init });
  const object = `memory-backend-file,id=mem,size=${GUEST_MIB}M,share=on,mem-path=${path}`;
  const drive = `driver=file,node-name=drive,filename=${archive},read-only=on`;
  const args = ["-blockdev", drive, "-device", "virtio-blk-pci,drive=drive"];
  await using qemu = startQemu({ dir, guest, memoryMib: GUEST_MIB, memoryObject: object, args });
  await qemu.waitForSerial(/RECORDED/, 200_000);
}

/** Changes one page in each `step` bytes of the copies. */
function repeat(path: string, sizeBytes: number, step: number): void {
  const unit = GUEST_MIB * MIB;
  truncateSync(path, Math.min(sizeBytes, unit));
  const fd = openSync(path, "r+");
  const piece = new Uint8Array(MIB);
  const words = new BigUint64Array(piece.buffer);
  for (let at = unit; at < sizeBytes; at += MIB) {
    readSync(fd, piece, 0, MIB, at % unit);
    const copy = BigInt(Math.floor(at / unit)) * 0x9e37_79b9_7f4a_7c15n;
    for (let page = 0; page < MIB; page += step) {
      const isZero = Buffer.compare(piece.subarray(page, page + PAGE), new Uint8Array(PAGE)) === 0;
      if (!isZero) words[(page + CHANGED_AT) / 8]! ^= copy;
    }
    writeSync(fd, piece, 0, MIB, at);
  }
  closeSync(fd);
}
