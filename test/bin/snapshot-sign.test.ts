import { expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OwnSnapshots, requireMayStart } from "../../migrate/mod.ts";
import { readSigner, SnapshotReader } from "../../migrate/snapshot/mod.ts";
import { fixture } from "../fixtures/make-snapshot.ts";
import { resealContainer } from "../fuzz/container.ts";
import { runVhu } from "./run-vhu.ts";

const source = fixture.paths[1]!;

test("sign: 0; the root stays, verify names the signer, and every byte counts", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  try {
    const [key, signed] = [join(folder, "key.pem"), join(folder, "signed.vhu")];
    const pair = generateKeyPairSync("ed25519");
    writeFileSync(key, pair.privateKey.export({ type: "pkcs8", format: "pem" }));
    const sign = await runVhu(["snapshot", "sign", "--key", key, source, signed, "--json"]);
    expect([sign.status, sign.stderr]).toEqual([0, ""]);
    const { publicKey } = JSON.parse(sign.stdout.trim().split("\n").at(-1)!);
    const env = { XDG_CONFIG_HOME: folder };
    expect((await runVhu(["snapshot", "verify", signed], { env })).stdout).toContain("not trusted here");
    mkdirSync(join(folder, "vhu"));
    writeFileSync(join(folder, "vhu", "trusted-keys"), `# mine\ned25519:${publicKey} the backup host\n`);
    expect((await runVhu(["snapshot", "verify", signed], { env })).stdout).toContain(
      "signed by the backup host",
    );
    using before = SnapshotReader.open(source);
    using after = SnapshotReader.open(signed);
    expect(after.root).toBe(before.root);
    expect(readSigner(before)).toBeUndefined();
    const own = new OwnSnapshots(folder);
    expect(() => requireMayStart(after.root, { own, trust: false })).toThrow("not written by you");
    requireMayStart(after.root, { own, trust: false, signer: "the backup host" });
    const whole = new Uint8Array(readFileSync(signed));
    // Behind it, the signature could be taken away as well: then the file is not signed.
    const end = after.records().find(({ typeName }) => typeName === "signature")?.offset ?? 0;
    for (let at = 20; at < end; at += 37) {
      const bytes = new Uint8Array(whole);
      bytes[at]! ^= 1;
      resealContainer(bytes);
      // A checksum was hit, and was mended again.
      if (Buffer.compare(bytes, whole) === 0) continue;
      writeFileSync(signed, bytes);
      expect(() => {
        using reader = SnapshotReader.open(signed);
        readSigner(reader);
      }).toThrow();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("sign: 3 for a damaged file, wherever; nobody vouches for damage", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  try {
    const [key, damaged, signed] = ["key.pem", "damaged.vhu", "signed.vhu"].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    writeFileSync(key, generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }));
    const whole = new Uint8Array(readFileSync(source));
    using reader = SnapshotReader.open(source);
    for (const { offset } of reader.records()) {
      const bytes = whole.slice();
      bytes[offset + 28]! ^= 1;
      writeFileSync(damaged, bytes);
      const { status } = await runVhu(["snapshot", "sign", "--key", key, damaged, signed]);
      expect([status, existsSync(signed)]).toEqual([3, false]);
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("sign: 1 without the key's file, 2 for another kind of key or no key, 3 for what is no snapshot", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  try {
    const [key, rsa, out] = ["key.pem", "rsa.pem", "out.vhu"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const sign = async (from: string, words: readonly string[]) =>
      (await runVhu(["snapshot", "sign", from, out, ...words])).status;
    expect(await sign(source, ["--key", join(folder, "none")])).toBe(1);
    expect(await sign(source, [])).toBe(2);
    writeFileSync(
      rsa,
      generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ type: "pkcs8", format: "pem" }),
    );
    expect(await sign(source, ["--key", rsa])).toBe(2);
    writeFileSync(key, generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }));
    expect(await sign(key, ["--key", key])).toBe(3);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
