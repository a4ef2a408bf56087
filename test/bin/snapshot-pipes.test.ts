import { afterAll, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

const source = fixture.paths[1]!;
const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (name: string) => join(folder, name);

/** Runs it with a snapshot as stdin; stdout is bytes. */
async function through(words: readonly string[], stdin: Uint8Array = readFileSync(source)) {
  const child = Bun.spawn([...PROGRAM, "snapshot", ...words], { stdin, stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr] = await Promise.all([child.stdout.bytes(), child.stderr.text()]);
  return { status: await child.exited, stdout, stderr };
}

function reading(bytes: Uint8Array): SnapshotReader {
  writeFileSync(at("piped.vhu"), bytes);
  return SnapshotReader.open(at("piped.vhu"));
}

test("convert, replace and flatten: a snapshot in, a snapshot out", async () => {
  writeFileSync(at("state"), "another state");
  for (const words of [
    ["convert", "--level", "5", "-", "-"],
    ["replace", "--device", "console0", "--state", at("state"), "-", "-"],
    ["flatten", "-", "-"],
  ]) {
    const { status, stdout, stderr } = await through(words);
    expect([words[0], status, stderr.split("\n")[0]?.startsWith("stdout: ")]).toEqual([words[0], 0, true]);
    using reader = reading(stdout);
    expect(reader.verify({ deep: true })).toMatchObject({ ok: true });
  }
});

test("extract: a device's state, a region, a stream and a core file into a pipe", async () => {
  const device = await through(["extract", "--device", "console0", "-", "-"]);
  expect(Buffer.compare(device.stdout, fixture.deviceState)).toBe(0);
  const region = await through(["extract", "--region", "ram", source, "-"]);
  expect(region.stdout.length).toBe(fixture.regionBytes[0]!);
  expect(Buffer.from(region.stdout.subarray(0, 4096)).equals(Buffer.from(fixture.pages.first))).toBe(true);
  const stream = await through(["extract", "--stream", "machine", "-", "-"]);
  expect(stream.stdout.toString()).toBe(fixture.machineState.toString());
  expect((await runVhu(["snapshot", "extract", "--core", source, at("core")])).status).toBe(0);
  const core = await through(["extract", "--core", "-", "-"]);
  expect(Buffer.compare(core.stdout, readFileSync(at("core")))).toBe(0);
});

test("sign, stats, diff and verify read a pipe", async () => {
  const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" });
  writeFileSync(at("key.pem"), pem);
  expect((await through(["sign", "--key", at("key.pem"), "-", at("signed.vhu")])).status).toBe(0);
  expect((await through(["stats", "-", "--json"])).status).toBe(0);
  expect((await through(["diff", "-", source])).status).toBe(0);
  const verify = await through(["verify", "--deep", "-"], readFileSync(at("signed.vhu")));
  expect([verify.status, Buffer.from(verify.stdout).toString().includes("signed by")]).toEqual([0, true]);
});

test("convert: directories and version 0; 2, 3 and 4 for what cannot be", async () => {
  const convert = async (...words: string[]) => runVhu(["snapshot", "convert", ...words]);
  expect((await convert("--to", "directory", source, at("web.d"))).status).toBe(0);
  expect((await convert(at("web.d"), at("again.vhu"))).status).toBe(0);
  expect((await runVhu(["snapshot", "diff", source, at("again.vhu")])).status).toBe(0);
  expect((await convert("--to", "directory", source, at("web.d"))).stderr).toContain("is there already");
  expect((await convert("--to", "directory", at("web.d"), at("x"))).status).toBe(2);
  expect((await convert("--level", "20", source, at("x"))).status).toBe(2);
  const description = at("web.d/snapshot.json");
  writeFileSync(description, readFileSync(description, "utf8").replace('"0x80000"', '"many"'));
  const edited = await convert(at("web.d"), at("x.vhu"));
  expect(edited.status).toBe(3);
  expect(edited.stderr).toContain("devices.0.protocolFeatures");
  expect((await convert("--to", "vhu-0", source, at("old.vhu"))).status).toBe(0);
  const recipient = await identityToRecipient(await generateX25519Identity());
  const locked = await convert("--to", "vhu-0", "--encrypt-to", recipient, source, at("x.vhu"));
  expect(locked.status).toBe(4);
  expect(locked.stderr).toContain("version 0 of the format has no encrypted files");
  expect((await convert("--encrypt-to", recipient, source, at("safe.vhu"))).status).toBe(0);
});

test("1 for a file that is not there, 2 for a missing argument, 3 for no snapshot, 4 without the key", async () => {
  writeFileSync(at("text"), "no snapshot");
  const commands: readonly (readonly string[])[] = [
    ["diff", "FILE", source],
    ["stats", "FILE"],
    ["extract", "--core", "FILE", at("out")],
    ["replace", "--device", "console0", "--state", at("text"), "FILE", at("out")],
    ["flatten", "FILE", at("out")],
  ];
  const statuses = commands.map(async (words) => {
    const of = (file: string) => words.map((word) => (word === "FILE" ? file : word));
    const runs = [of("/nowhere.vhu"), [words[0] as string], of(at("text")), of(at("safe.vhu"))];
    return Promise.all(runs.map(async (each) => (await runVhu(["snapshot", ...each])).status));
  });
  for (const found of await Promise.all(statuses)) expect(found).toEqual([1, 2, 3, 4]);
});
