/** What the commands that write say and leave behind where something is in the way. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import {
  type NewFileKey,
  newFileKey,
  SnapshotReader,
  SnapshotWriter,
  unlockSnapshot,
} from "../../migrate/snapshot/mod.ts";
import { pages } from "../migrate/snapshot/support.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

const SIZE = 2 << 20;
const dir = mkdtempSync(join(tmpdir(), "vhu-writes-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);
const env = { XDG_STATE_HOME: at("state") };
const vhu = (...words: string[]) => runVhu(["snapshot", ...words], { env });
let recipient = "";

async function write(name: string, base?: SnapshotReader, fileKey?: NewFileKey, pageHashes = false) {
  const header = { writer: { name: "vhu", version: "0" }, machine: { name: "m" } };
  using writer = SnapshotWriter.toFile(at(name), header, { base, fileKey, pageHashes });
  writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes: SIZE, name: "ram" }]);
  const memory = pages(SIZE / 4096);
  if (base !== undefined) memory.fill(5, 0, 4096);
  await writer.writeMemory(0, 0, memory);
  const state = writer.writeDeviceState(0);
  state.write(memory.subarray(0, 100));
  state.finish();
  const masks = { features: "0x0", protocolFeatures: "0x0", queues: [], config: "", stateFormat: "x" };
  const device = { id: 0, name: "d", type: "blk", backend: { identity: "x" }, stateBytes: 100, ...masks };
  writer.writeManifest({ machine: { name: "m" }, devices: [device], memory: { totalBytes: SIZE } });
  writer.finish();
}

beforeAll(async () => {
  const identity = await generateX25519Identity();
  recipient = await identityToRecipient(identity);
  writeFileSync(at("key"), `${identity}\n`);
  await write("plain.vhu", undefined, undefined, true);
  await write("safe.vhu", undefined, await newFileKey({ recipients: [recipient] }));
  using base = await unlockSnapshot(at("safe.vhu"), { identities: [identity] });
  await write("child.vhu", base, await newFileKey({ recipients: [recipient] }));
  await write("open-child.vhu", base);
});

test("2 where a secret would become plain without a word: flatten, convert and replace, of a plain child of an encrypted file, too", async () => {
  const lines = [
    ["flatten", "child.vhu"],
    ["flatten", "open-child.vhu"],
    ["convert", "safe.vhu"],
    ["replace", "safe.vhu", "--device", "d", "--state", at("key")],
  ];
  for (const [command, file, ...more] of lines) {
    const words = [command!, at(file!), at("new.vhu"), "--identity", at("key"), ...more];
    const refused = await vhu(...words);
    expect([refused.status, existsSync(at("new.vhu"))]).toEqual([2, false]);
    expect(refused.stderr).toContain("give --encrypt-to or --encrypt-passphrase-file, or --decrypt");
  }
  expect(
    (
      await vhu(
        "convert",
        "--decrypt",
        "--encrypt-to",
        recipient,
        "--identity",
        at("key"),
        at("safe.vhu"),
        at("new.vhu"),
      )
    ).status,
  ).toBe(2);
  const flat = await vhu(
    "flatten",
    "--encrypt-to",
    recipient,
    "--identity",
    at("key"),
    at("child.vhu"),
    at("flat.vhu"),
  );
  expect(flat).toMatchObject({ status: 0, stderr: "" });
  expect((await vhu("verify", "--deep", at("flat.vhu"))).status).toBe(4);
  expect((await vhu("verify", "--deep", "--identity", at("key"), at("flat.vhu"))).status).toBe(0);
  const plain = await vhu(
    "flatten",
    "--decrypt",
    "--identity",
    at("key"),
    at("child.vhu"),
    at("decrypted.vhu"),
  );
  expect(plain.stdout).toContain("a full snapshot");
  expect((await vhu("diff", "--identity", at("key"), at("flat.vhu"), at("decrypted.vhu"))).status).toBe(0);
}, 30_000);

test("save: 2 where what changed since an encrypted base would not be encrypted", async () => {
  const words = ["migrate", "save", "--base", at("safe.vhu"), "--identity", at("key")];
  const { status, stderr } = await runVhu([...words, `machine:${at("nowhere")}`, at("new.vhu")], { env });
  expect([status, stderr]).toEqual([2, expect.stringContaining("the base is encrypted")]);
});

test("a file without its parent is looked into with a key as without one; 4 where the parent is needed", async () => {
  mkdirSync(at("alone"));
  for (const name of ["child.vhu", "open-child.vhu"]) renameSync(at(name), join(at("alone"), name));
  for (const name of ["child.vhu", "open-child.vhu"]) {
    const file = join(at("alone"), name);
    for (const words of [["inspect"], ["stats"], ["verify"]])
      expect(await vhu(...words, "--identity", at("key"), file)).toMatchObject({ status: 0, stderr: "" });
    const deep = await vhu("verify", "--deep", "--identity", at("key"), file);
    expect([deep.status, deep.stderr]).toEqual([4, expect.stringContaining('is based on "safe.vhu"')]);
    expect(
      (await vhu("verify", "--deep", "--identity", at("key"), "--parent", at("safe.vhu"), file)).status,
    ).toBe(0);
  }
}, 30_000);

test("hashes of pages are kept by what writes a snapshot anew", async () => {
  expect((await vhu("convert", at("plain.vhu"), at("anew.vhu"))).status).toBe(0);
  using reader = SnapshotReader.open(at("anew.vhu"));
  expect(reader.pageHashes()).toBeDefined();
  expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  expect((await vhu("convert", "--to", "vhu-0", at("plain.vhu"), at("zero.vhu"))).status).toBe(0);
});

test("sign writes into a pipe; diff: 2 for stdin twice", async () => {
  Bun.spawnSync(["openssl", "genpkey", "-algorithm", "ed25519", "-out", at("key.pem")]);
  const stdin = new Uint8Array(readFileSync(at("plain.vhu")));
  const child = Bun.spawn([...PROGRAM, "snapshot", "sign", "--key", at("key.pem"), "-", "-"], {
    stdin,
    stdout: "pipe",
    stderr: "pipe",
  });
  const signed = await child.stdout.bytes();
  expect([await child.exited, await child.stderr.text()]).toEqual([
    0,
    expect.stringContaining("stdout is signed"),
  ]);
  const verified = await runVhu(["snapshot", "verify", "-"], { stdin: signed, env });
  expect([verified.status, verified.stdout]).toEqual([0, expect.stringContaining("signed by a key")]);
  const twice = await runVhu(["snapshot", "diff", "-", "-"], { stdin });
  expect([twice.status, twice.stderr]).toEqual([2, expect.stringContaining("only one of the two")]);
});

test("1 where stdout is full, and no bug", async () => {
  for (const words of [["inspect"], ["inspect", "--json"], ["verify"], ["stats"]]) {
    const full = openSync("/dev/full", "w");
    const child = Bun.spawn([...PROGRAM, "snapshot", ...words, at("plain.vhu")], {
      stdout: full,
      stderr: "pipe",
    });
    const said = await child.stderr.text();
    expect([await child.exited, said.includes("ENOSPC (stdout)"), said.includes("bug")]).toEqual([
      1,
      true,
      false,
    ]);
    closeSync(full);
  }
});

test("1 where the disk is full, by the target's name; nothing is left of it, and the old file stays", async () => {
  const mount = at("small");
  mkdirSync(mount);
  if (Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=64k", "vhu-test", mount]).exitCode !== 0) {
    console.log("skipped: a small tmpfs cannot be mounted here (needs root)");
    return;
  }
  try {
    const old = join(mount, "old");
    writeFileSync(old, "old");
    const file = at("plain.vhu");
    for (const words of [
      ["convert", file, old],
      ["convert", "--to", "directory", file, join(mount, "d")],
      ["flatten", file, old],
      ["extract", "--core", file, old],
      ["extract", "--region", "ram", file, old],
      ["sign", "--key", at("key.pem"), file, old],
    ]) {
      const { status, stderr } = await vhu(...words);
      expect([words[0], status, stderr.includes("ENOSPC"), stderr.includes(mount)]).toEqual([
        words[0],
        1,
        true,
        true,
      ]);
      expect([readdirSync(mount), readFileSync(old, "utf8")]).toEqual([["old"], "old"]);
    }
    const filled = Bun.spawnSync(["dd", "if=/dev/zero", `of=${join(mount, "fill")}`, "bs=1k"]);
    expect(filled.exitCode).not.toBe(0);
    const page = await vhu("inspect", "--html", old, file);
    expect([page.status, readFileSync(old, "utf8")]).toEqual([1, "old"]);
  } finally {
    Bun.spawnSync(["umount", mount]);
  }
}, 30_000);
