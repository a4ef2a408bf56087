import { describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import { rewriteSnapshot } from "../../migrate/mod.ts";
import { type Extent, SnapshotReader, SnapshotWriter, signSnapshot } from "../../migrate/snapshot/mod.ts";
import { addressOf } from "../../src/sys/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { headerFields, manifest, PAGE, pages, temporaryFolder } from "../migrate/snapshot/support.ts";

const READER = join(import.meta.dir, "read-snapshot.py");
const python = Bun.which("python3");
if (python === null && process.env.CI === "true") throw new Error("python3 is missing: install it");
if (python === null) console.error("skipped: python3 is missing; install it (apt-get install python3)");

interface Found {
  readonly version: number;
  readonly header: Record<string, unknown>;
  readonly root: string;
  readonly signedBy: string | null;
  readonly parent: unknown;
  readonly extents: readonly Record<string, unknown>[];
  readonly [key: string]: unknown;
}

function readByPage(path: string): Found {
  const ran = Bun.spawnSync([python ?? "", READER, path]);
  if (ran.exitCode !== 0) throw new Error(ran.stderr.toString());
  return JSON.parse(ran.stdout.toString()) as Found;
}

function extentOf({ regionId, passNumber, offset, sizeBytes, kind, frame, skipBytes }: Extent) {
  const where = { region: regionId, pass: passNumber, offset, size: sizeBytes };
  return { ...where, kind, frame: frame?.offset ?? 0, skip: skipBytes };
}

/** What another language finds with docs/snapshot-format.md alone is what vhu finds. */
function expectSame(path: string, parents: readonly string[] = []): Found {
  const found = readByPage(path);
  using reader = SnapshotReader.open(path, { parents });
  const { formatVersion, header, manifest: ours, memoryMap, root, parent, streams, stats } = reader;
  const listed = reader.records().filter(({ typeName }) => !["index", "signature", "end"].includes(typeName));
  expect(found.version).toBe(formatVersion);
  expect(header).toMatchObject(found.header);
  expect(found).toMatchObject({ manifest: ours, regions: memoryMap, root, streams });
  expect(found.parent as unknown).toEqual((parent ?? null) as unknown);
  expect(found.records as unknown).toEqual(
    listed.map(({ type, flags, id, offset, payloadBytes }) => ({
      type,
      flags,
      id: Number(id),
      offset,
      size: payloadBytes + 32,
    })),
  );
  expect(found.extents as unknown).toEqual(
    memoryMap.flatMap(({ id }) => reader.extents(id)).map(extentOf) as unknown,
  );
  expect(found.stats as unknown).toEqual(Object.values(stats) as unknown);
  return found;
}

describe.skipIf(python === null)(
  "docs/snapshot-format.md is exact enough for a reader in another language",
  () => {
    test.each([...fixture.paths.entries()])("the fixture of version %d", (version, path) => {
      expect(expectSame(path).version).toBe(version);
    });

    test("an incremental file with passes and duplicates, its base, a signed one, and version 0", async () => {
      using folder = temporaryFolder();
      const [base, child, signed, old] = ["base", "child", "signed", "old"].map((name) =>
        join(folder.path, name),
      ) as [string, string, string, string];
      const size = 1 << 20;
      const memory = new Uint8Array(size);
      memory.set(pages(40, 1), 0);
      memory.set(pages(40, 1), 100 * PAGE);
      memory.set(pages(10, 2), 200 * PAGE);
      const write = async (path: string, below?: SnapshotReader) => {
        using writer = SnapshotWriter.toFile(path, headerFields, { base: below });
        writer.writeMemoryMap([{ id: 3, guestAddress: 0, sizeBytes: size, name: "ram" }]);
        {
          using _ = writer.lookUpPages({ address: addressOf(memory), sizeBytes: size });
          await writer.writeMemory(3, 0, memory);
          writer.nextMemoryPass();
          await writer.writeMemory(3, 5 * PAGE, pages(3, 7));
        }
        writer.writeManifest(manifest);
        writer.finish();
      };
      await write(base);
      expect(expectSame(base).extents.some(({ kind, skip }) => kind === "duplicate" || skip !== 0)).toBe(
        true,
      );
      memory.set(pages(2, 9), 50 * PAGE);
      memory.fill(0, 200 * PAGE, 205 * PAGE);
      using reader = SnapshotReader.open(base);
      await write(child, reader);
      const kinds = new Set(expectSame(child, [base]).extents.map(({ kind }) => kind));
      expect(kinds).toEqual(new Set(["parent", "data", "zero"]));
      const pem = generateKeyPairSync("ed25519").privateKey.export({
        type: "pkcs8",
        format: "pem",
      }) as string;
      const { publicKey } = signSnapshot(base, signed, pem);
      expect(expectSame(signed).signedBy).toBe(publicKey);
      await rewriteSnapshot(reader, old, { formatVersion: 0 });
      expectSame(old);
    });

    test("a byte that is not right is found there as well", async () => {
      using folder = temporaryFolder();
      const path = join(folder.path, "damaged.vhu");
      const bytes = new Uint8Array(await Bun.file(fixture.paths[1]!).arrayBuffer());
      for (const at of [20, 500, 1000, 1500, 1800, 2450]) {
        const damaged = new Uint8Array(bytes);
        damaged[at]! ^= 1;
        await Bun.write(path, damaged);
        expect(() => readByPage(path)).toThrow("read-snapshot:");
      }
    });
  },
);
