import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { rewriteSnapshot } from "../../../migrate/mod.ts";
import { loadMemory, saveMemory } from "../../../migrate/ram/mod.ts";
import {
  type EncryptTo,
  lockedSnapshot,
  newFileKey,
  SnapshotReader,
  SnapshotWriter,
  unlockSnapshot,
} from "../../../migrate/snapshot/mod.ts";
import { FormatError } from "../../../src/errors.ts";
import { createMemfd, Mapping } from "../../../src/sys/mod.ts";
import { randomNumbers } from "../../fuzz/mutate.ts";
import { failureOf, headerFields, MiB, PAGE, pages, temporaryFolder } from "./support.ts";

const SIZE = 40 * MiB;
const header = { ...headerFields, machine: { name: "secret-machine" }, labels: { owner: "somebody" } };
const identity = await generateX25519Identity();
const recipients = [await identityToRecipient(identity)];
const state = new TextEncoder().encode("the state of a device ".repeat(100));

function machineMemory(seed: number) {
  const fd = createMemfd("guest", SIZE);
  using mapping = Mapping.ofFd(fd, { sizeBytes: SIZE });
  const memory = new Uint8Array(mapping.window(0, SIZE));
  for (let at = 0; at < 34; at += 1) memory.set(pages(256, at % 20), at * MiB);
  memory.set(pages(1, seed), 7 * PAGE);
  return fd;
}

async function save(path: string, seed: number, base?: SnapshotReader, to: EncryptTo = { recipients }) {
  using fd = machineMemory(seed);
  using writer = SnapshotWriter.toFile(path, header, { base, fileKey: await newFileKey(to) });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
  await saveMemory(writer, 0, fd, SIZE);
  const stream = writer.writeDeviceState(4);
  stream.write(state);
  stream.finish();
  writer.writeManifest({ machine: { commandLine: "a password" }, devices: [], memory: { totalBytes: SIZE } });
  return writer.finish();
}

async function expectContent(reader: SnapshotReader, seed: number): Promise<void> {
  using fd = await loadMemory(reader, reader.memoryMap[0]!);
  using expected = machineMemory(seed);
  using found = Mapping.ofFd(fd, { sizeBytes: SIZE });
  using right = Mapping.ofFd(expected, { sizeBytes: SIZE });
  const bytes = (mapping: Mapping) => new Uint8Array(mapping.window(0, SIZE));
  expect(Buffer.compare(bytes(found), bytes(right))).toBe(0);
}

describe("an encrypted snapshot", () => {
  test("opens with the key, shows nothing without it, and says what is wrong", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    await save(path, 1);
    const text = readFileSync(path).toString("latin1");
    for (const word of ["secret-machine", "somebody", "a password", "the state of a device"]) {
      expect(text).not.toContain(word);
    }
    expect(lockedSnapshot(path)?.keys).toMatchObject([{ kind: "recipients", count: 1 }]);
    expect(failureOf(() => SnapshotReader.open(path))).toMatchObject({ code: "LOCKED" });
    using reader = await unlockSnapshot(path, { identities: [identity] });
    expect(reader.header).toMatchObject({
      machine: { name: "secret-machine" },
      labels: { owner: "somebody" },
    });
    expect(Buffer.concat([...reader.deviceState(4)])).toEqual(Buffer.from(state));
    expect(reader.stats.duplicateBytes).toBeGreaterThan(13 * MiB);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
    await expectContent(reader, 1);
    const other = { identities: [await generateX25519Identity()], passphrases: ["no"] };
    expect(unlockSnapshot(path, other)).rejects.toMatchObject({ code: "WRONG_KEY" });
    await unlockSnapshot(path, other).catch(() => undefined);
  });

  test("opens with a passphrase", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    await save(path, 1, undefined, { passphrases: ["correct horse"] });
    using reader = await unlockSnapshot(path, { passphrases: ["wrong", "correct horse"] });
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  }, 60_000);

  test("stands on another encrypted one, and is rewritten with another key", async () => {
    using folder = temporaryFolder();
    const [mon, tue, plain] = ["mon", "tue", "plain"].map((name) => join(folder.path, `${name}.vhu`)) as [
      string,
      string,
      string,
    ];
    const full = await save(mon, 1);
    using base = await unlockSnapshot(mon, { identities: [identity] });
    const child = await save(tue, 2, base);
    expect(child.sizeBytes).toBeLessThan(full.sizeBytes / 10);
    using reader = await unlockSnapshot(tue, { identities: [identity] });
    await expectContent(reader, 2);
    await rewriteSnapshot(reader, plain);
    using decrypted = SnapshotReader.open(plain);
    await expectContent(decrypted, 2);
    expect(decrypted.isEncrypted).toBe(false);
  });

  test("does not open where anything was changed, even with checksums that fit", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    await save(path, 1);
    const whole = new Uint8Array(readFileSync(path));
    const random = randomNumbers(3);
    const { resealContainer } = await import("../../fuzz/container.ts");
    let refused = 0;
    for (let count = 0; count < 60; count += 1) {
      const bytes = new Uint8Array(whole);
      bytes[random(bytes.length)]! ^= 1 << random(8);
      if (count % 2 === 0) resealContainer(bytes);
      writeFileSync(path, bytes);
      try {
        using reader = await unlockSnapshot(path, { identities: [identity] });
        if (!reader.verify({ deep: true }).ok) refused += 1;
      } catch {
        refused += 1;
      }
    }
    expect(refused).toBe(60);
  }, 60_000);

  test("does not open with pieces in other places", async () => {
    using folder = temporaryFolder();
    const path = join(folder.path, "a.vhu");
    await save(path, 1);
    using reader = await unlockSnapshot(path, { identities: [identity] });
    const [first, ...others] = reader.extents(0).flatMap(({ frame }) => frame ?? []);
    // Neighbours may share a frame: which pages are found to be duplicates depends on the Workers' pace.
    const second = others.find(({ offset }) => offset !== first?.offset);
    const bytes = readFileSync(path);
    bytes.copy(
      bytes,
      second!.offset,
      first!.offset,
      first!.offset + Math.min(first!.sizeBytes, second!.sizeBytes),
    );
    writeFileSync(path, bytes);
    using moved = await unlockSnapshot(path, { identities: [identity] });
    expect(failureOf(() => [...moved.memory(0)])).toBeInstanceOf(FormatError);
  });
});
