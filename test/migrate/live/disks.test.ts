import { expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { planDisks } from "../../../migrate/live/arrival-disks.ts";
import { ArrivingDisks } from "../../../migrate/live/arriving-disks.ts";
import {
  type DiskChunk,
  decodeDiskChunk,
  diskChecksum,
  encodeDiskChunk,
} from "../../../migrate/live/disk-chunk.ts";
import { DiskSender } from "../../../migrate/live/disk-sender.ts";
import { FrameType } from "../../../migrate/live/frame.ts";
import { RateLimit } from "../../../migrate/live/rate-limit.ts";
import { streamOf } from "../../../migrate/live/region-table.ts";
import { FormatError } from "../../../src/errors.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";
import { TcpRelay } from "../../support/tcp-relay.ts";
import { LiveRig, LOCAL } from "./live-pair.ts";

const DISK_BYTES = 8 << 20;
const MIB = 1 << 20;

const POLICY = { isAllowed: () => true, writerOf: () => undefined };

class Folder implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "vhu-disks-"));
  file(name: string): string {
    return join(this.path, name);
  }
  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

const chunk = fc.record({
  disk: fc.nat(255),
  codec: fc.constantFrom("plain", "zstd", "zero"),
  window: fc.nat(2 ** 30),
  within: fc.nat(MIB - 1),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 3000 }),
  checksum: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
});

test("a part of a disk is what it was, and nothing else is taken for one", () => {
  fc.assert(
    fc.property(chunk, ({ window, within, bytes, codec, ...rest }) => {
      const sizeBytes = Math.min(bytes.length, MIB - within);
      const frame = codec === "zero" ? new Uint8Array(0) : bytes.subarray(0, sizeBytes);
      const whole = { ...rest, codec, sizeBytes, frame, offset: window * MIB + within } as DiskChunk;
      expect(decodeDiskChunk(encodeDiskChunk(whole))).toEqual(whole);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      try {
        decodeDiskChunk(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
      }
    }),
  );
});

const outline = (path: string) => ({ path, format: "raw", virtualBytes: DISK_BYTES }) as const;
const good = { disk: 0, offset: 0, sizeBytes: 512, codec: "plain" } as const;
const bytes = new Uint8Array(512).fill(3);

test.each([
  ["no such disk", { ...good, disk: 1 }, 0],
  ["behind its end", { ...good, offset: DISK_BYTES }, 0],
  ["across its end", { ...good, offset: DISK_BYTES - 256 }, 0],
  ["another stream", { ...good, offset: MIB }, 1],
  ["another checksum", { ...good, checksum: 1n }, 0],
  ["no zstd frame", { ...good, codec: "zstd", frame: new Uint8Array(40) }, 0],
])("refused, and nothing is written: %s", (_what, change, wrongStream) => {
  using folder = new Folder();
  const path = folder.file("disk");
  using disks = new ArrivingDisks([outline(path)], 2, () => {});
  disks.create();
  const whole = { checksum: diskChecksum(bytes), frame: bytes, ...change } as DiskChunk;
  const stream = wrongStream || streamOf(whole.disk, whole.offset, 2);
  const frame = {
    type: FrameType.disk,
    flags: 0,
    stream,
    sequence: 1,
    payload: encodeDiskChunk(whole),
    checksum: bytes,
  };
  expect(() => disks.take(frame)).toThrow(FormatError);
  expect(statSync(path).blocks).toBe(0);
  disks.remove();
  expect(existsSync(path)).toBe(false);
});

test("two disks that are written at random arrive as they are, over connections that break", async () => {
  using folder = new Folder();
  const paths = [folder.file("one"), folder.file("two")];
  using rig = await LiveRig.start();
  using relay = await TcpRelay.start({ host: LOCAL, port: rig.port });
  using disks = new ArrivingDisks(paths.map(outline), 2, () => {});
  disks.create();
  rig.onSession = (session) => {
    session.onData = (frame) => void disks.take(frame);
  };
  using session = await rig.open({ address: { host: LOCAL, port: relay.port } });
  const rate = new RateLimit(undefined);
  const sender = new DiskSender(session, { paths, rate, compress: "auto" });
  const random = randomNumbers(20261125);
  const wanted = paths.map(() => new Uint8Array(DISK_BYTES));
  for (let round = 0; round < 60; round++) {
    const disk = random(2);
    const offset = random(DISK_BYTES / 512) * 512;
    const size = Math.min((1 + random(6000)) * 512, DISK_BYTES - offset);
    const written = new Uint8Array(size);
    // Some compress, some do not, some are zeros in part or altogether.
    const kind = random(4);
    if (kind === 0)
      for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(written.subarray(at, at + 65_536));
    else if (kind === 1) written.fill(1 + random(255));
    else if (kind === 2) written.fill(9, Math.floor(size / 2));
    if (kind === 3 && random(2) === 0) await sender.zero(disk, offset, size);
    else await sender.write(disk, offset, written);
    wanted[disk]!.set(written, offset);
    if (round % 20 === 10) relay.cut();
  }
  expect(await session.settled(20_000)).toBe(true);
  expect(session.reconnections).toBeGreaterThan(0);
  expect(() => disks.complete([0, 0])).toThrow(FormatError);
  disks.complete(sender.disks.map(({ chunks }) => chunks));
  await disks.sync();
  for (const [index, path] of paths.entries()) expect(readFileSync(path).equals(wanted[index]!)).toBe(true);
});

test("zeros that were never anything else are not sent, and a rate holds for disks", async () => {
  using folder = new Folder();
  using rig = await LiveRig.start();
  using disks = new ArrivingDisks([outline(folder.file("disk"))], 2, () => {});
  disks.create();
  rig.onSession = (session) => {
    session.onData = (frame) => void disks.take(frame);
  };
  using session = await rig.open();
  const rate = new RateLimit(1 << 30, () => 0);
  const sender = new DiskSender(session, { paths: [folder.file("disk")], rate, compress: "none" });
  await sender.write(0, 0, new Uint8Array(2 * MIB));
  await sender.zero(0, 0, DISK_BYTES);
  expect(sender.disks[0]).toMatchObject({ packedBytes: 0, chunks: 0 });
  await sender.write(0, MIB, new Uint8Array(MIB).fill(1));
  expect(sender.disks[0]).toMatchObject({ chunks: 1 });
  // What was sent has been taken from the rate.
  expect(rate.takeMs(1)).toBeGreaterThan(0);
  await sender.zero(0, 0, DISK_BYTES);
  expect(sender.disks[0]).toMatchObject({ chunks: 2 });
});

test("what becomes of a disk here: shared, copied, or refused with the reason", () => {
  using folder = new Folder();
  const marker = `.vhu-same-${"0".repeat(32)}`;
  writeFileSync(folder.file("shared"), "12345");
  writeFileSync(folder.file(marker), "");
  writeFileSync(folder.file("other"), "12345");
  symlinkSync(folder.file("nowhere"), folder.file("dangling"));
  const copy = { format: "raw", virtualBytes: 4096, usedBytes: 4096, readOnly: false } as const;
  const plan = (name: string, more: object = {}, policy: object = {}) => {
    const disk = { path: folder.file(name), sizeBytes: 5, copy, ...more };
    const { checks, copies } = planDisks([disk.path], [disk], { ...POLICY, ...policy });
    return { ...checks[0]!, copies: copies.length };
  };
  expect(plan("shared", { marker })).toMatchObject({ ok: true, copies: 0 });
  expect(plan("new")).toMatchObject({ ok: true, copies: 1 });
  expect(plan("new", { copy: undefined })).toMatchObject({ ok: false, copies: 0 });
  expect(plan("other").detail).toContain("vhu never writes over a file");
  expect(plan("other", { copy: { ...copy, readOnly: true } })).toMatchObject({ ok: true, copies: 0 });
  expect(plan("other", { sizeBytes: 6, copy: { ...copy, readOnly: true } }).ok).toBe(false);
  expect(plan("dangling")).toMatchObject({ ok: false, copies: 0 });
  expect(plan("no/folder").detail).toContain("its folder is not here");
  expect(plan("new", {}, { diskMaxBytes: 4095 }).detail).toContain("4095 may arrive");
  expect(plan("new", {}, { isAllowed: () => false }).detail).toContain("outside of what --root allows");
  expect(plan("new", {}, { writerOf: () => "web" }).detail).toContain("is a disk of web, which is arriving");
  expect(plan("new", { copy: { ...copy, usedBytes: 2 ** 52 } }).detail).toContain("more than are free");
  expect(plan("new", { copy: { ...copy, format: "qcow2", virtualBytes: 2 ** 50 } }).ok).toBe(false);
});

test("two disks share what is free on their file system", () => {
  using folder = new Folder();
  const disk = (name: string, usedBytes: number) => ({
    path: folder.file(name),
    sizeBytes: 5,
    copy: { format: "raw" as const, virtualBytes: 2 ** 52, usedBytes, readOnly: false },
  });
  const plan = (...disks: ReturnType<typeof disk>[]) =>
    planDisks(
      disks.map(({ path }) => path),
      disks,
      POLICY,
    ).checks;
  const most = plan(disk("a", 2 ** 52))[0]!.detail;
  const free = 2 ** 52 - Number(/which is (\d+) more/.exec(most)![1]);
  const half = Math.floor(free * 0.6);
  expect(plan(disk("a", half), disk("b", half)).map(({ ok }) => ok)).toEqual([true, false]);
});
