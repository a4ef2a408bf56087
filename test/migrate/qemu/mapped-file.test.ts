import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { mappedFile, openMappedFile } from "../../../migrate/qemu/mapped-file.ts";
import { ramBlockPlaces } from "../../../migrate/qemu/ram-block-places.ts";
import { createMemfd, Mapping, O, openFile } from "../../../src/sys/mod.ts";

const SIZE = 1 << 20;

test("a shared mapping of a whole memfd is opened, and holds what its process writes", () => {
  using memfd = createMemfd("guest", SIZE);
  using mapping = Mapping.ofFd(memfd, { sizeBytes: SIZE });
  new Uint8Array(mapping.window(0, SIZE))[5000] = 7;
  using opened = openMappedFile(process.pid, mapping.address, SIZE)!;
  using seen = Mapping.ofFd(opened, { sizeBytes: SIZE, readOnly: true });
  expect(new Uint8Array(seen.window(0, SIZE))[5000]).toBe(7);
  // A part of it is no whole file, nor is what lies behind it.
  expect(openMappedFile(process.pid, mapping.address, SIZE / 2)).toBeUndefined();
  expect(openMappedFile(process.pid, mapping.address + SIZE / 2, SIZE / 2)).toBeUndefined();
});

test("what is not shared, no file in memory, or of nobody is not opened", () => {
  using anonymous = Mapping.anonymous(SIZE);
  expect(openMappedFile(process.pid, anonymous.address, SIZE)).toBeUndefined();
  expect(openMappedFile(2 ** 22 + 1, anonymous.address, SIZE)).toBeUndefined();
  // The working folder is on a disk, or at least on no tmpfs, wherever the tests run.
  const folder = mkdtempSync(join(import.meta.dir, "mapped-"));
  try {
    writeFileSync(join(folder, "ram"), new Uint8Array(SIZE));
    using file = openFile(join(folder, "ram"), O.RDWR);
    using mapping = Mapping.ofFd(file, { sizeBytes: SIZE });
    expect(openMappedFile(process.pid, mapping.address, SIZE)).toBeUndefined();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const line = (from: number, to: number, rest: string) =>
  `${from.toString(16)}-${to.toString(16)} ${rest} /memfd:memory-backend-memfd (deleted)\n`;

test("the mappings of a range are one file from its start, or nothing", () => {
  const before = line(0x1000, 0x2000, "rw-p 00000000 00:01 5");
  const whole = line(0x10000, 0x20000, "rw-s 00000000 00:01 77");
  const first = line(0x10000, 0x14000, "rw-s 00000000 00:01 77");
  const find = (maps: string) => mappedFile(before + maps, 0x10000, 0x10000);
  expect(find(whole)).toEqual({ device: 1n, inode: 77n });
  expect(find(first + line(0x14000, 0x20000, "r--s 00004000 00:01 77"))?.inode).toBe(77n);
  expect(find(line(0x10000, 0x20000, "rw-s 00000000 103:fffff 9"))?.device).toBe(0xfff103ffn);
  for (const maps of [
    "",
    first,
    first + line(0x15000, 0x20000, "rw-s 00005000 00:01 77"),
    first + line(0x14000, 0x20000, "rw-s 00005000 00:01 77"),
    first + line(0x14000, 0x20000, "rw-s 00004000 00:01 78"),
    first + line(0x14000, 0x20000, "rw-p 00004000 00:01 77"),
    line(0x10000, 0x20000, "rw-s 00001000 00:01 77"),
    line(0x10000, 0x20000, "rw-p 00000000 00:01 77"),
    line(0x10000, 0x20000, "rw-s 00000000 00:00 0"),
  ])
    expect(find(maps)).toBeUndefined();
});

test("RAM blocks of QEMU 10.0.2: those that the guest writes to, of their full size", () => {
  const text = `              Block Name    PSize              Offset               Used              Total                HVA  RO
                     mem    4 KiB  0x0000000000000000 0x0000000080000000 0x0000000080000000 0x00007fc6d7fff000  rw
  0000:00:02.0/vga.vram    4 KiB  0x0000000080080000 0x0000000001000000 0x0000000001000000 0x00007fc6d5600000  rw
    /rom@etc/acpi/tables    4 KiB  0x0000000080080000 0x0000000000020000 0x0000000000200000 0x00007fc6d5600000  rw
                 pc.bios    4 KiB  0x0000000080000000 0x0000000000040000 0x0000000000040000 0x00007fc79c600000  ro
`;
  expect(ramBlockPlaces(text.replaceAll("\n", "\r\n"))).toEqual([
    { name: "mem", sizeBytes: 2 ** 31, address: 0x7fc6d7fff000 },
    { name: "0000:00:02.0/vga.vram", sizeBytes: 2 ** 24, address: 0x7fc6d5600000 },
  ]);
});

test("whatever the texts are, nothing is thrown", () => {
  const parts = fc.constantFrom("0x0", "0xffffffffffffffff", "4 KiB", "mem", "rw", " ", "\n", "-", "s", "9");
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(parts).map((words) => words.join(" ")),
      ),
      (text) => {
        for (const { sizeBytes, address } of ramBlockPlaces(text)) {
          expect(Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(address)).toBe(true);
        }
        mappedFile(text, 0x1000, 0x1000);
      },
    ),
  );
});
