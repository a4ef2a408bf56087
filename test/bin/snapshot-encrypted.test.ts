import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { newFileKey, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "./run-vhu.ts";

test("inspect shows a locked page without the key, all with it; verify: 4 without, 4 with a wrong one, 0 with it", async () => {
  const folder = mkdtempSync(join(tmpdir(), "vhu-bin-"));
  try {
    const [path, key, wrong] = ["a.vhu", "key.txt", "wrong.txt"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const identity = await generateX25519Identity();
    writeFileSync(key, `# a key\n${identity}\n`);
    writeFileSync(wrong, `${await generateX25519Identity()}\n`);
    const fileKey = await newFileKey({ recipients: [await identityToRecipient(identity)] });
    const header = { writer: { name: "vhu", version: "0" }, machine: { name: "hidden" } };
    using writer = SnapshotWriter.toFile(path, header, { fileKey });
    writer.writeManifest({ devices: [], memory: { totalBytes: 0 } });
    writer.finish();
    const locked = await runVhu(["snapshot", "inspect", path]);
    expect(locked.status).toBe(0);
    expect(locked.stdout).toContain("opens for  1 recipient");
    expect(locked.stdout).not.toContain("hidden");
    const open = await runVhu(["snapshot", "inspect", "--identity", key, path]);
    expect([open.status, open.stderr]).toEqual([0, ""]);
    expect(open.stdout).toContain("hidden");
    const verify = (words: readonly string[]) => runVhu(["snapshot", "verify", "--deep", path, ...words]);
    expect((await verify([])).status).toBe(4);
    expect((await verify(["--identity", wrong])).stderr).toContain("none of the 1 keys");
    expect((await verify(["--identity", key])).status).toBe(0);
    // Without a key, byte by byte; what is damaged is found all the same.
    const whole = await runVhu(["snapshot", "verify", path]);
    expect(whole.status).toBe(0);
    expect(whole.stdout).toContain("is whole as far as can be seen without its key");
    const bytes = new Uint8Array(readFileSync(path));
    const stdin = bytes.slice();
    expect((await runVhu(["snapshot", "verify", "-", "--json"], { stdin })).stdout).toContain(
      '"isLocked":true',
    );
    expect((await runVhu(["snapshot", "verify", "-", "--identity", key], { stdin })).status).toBe(0);
    bytes[bytes.length >> 1]! ^= 1;
    const damaged = await runVhu(["snapshot", "verify", "-"], { stdin: bytes });
    expect([damaged.status, damaged.stdout]).toEqual([3, expect.stringContaining("is damaged in 1 place")]);
    const plain = join(folder, "plain.vhu");
    expect((await runVhu(["snapshot", "flatten", "--decrypt", "--identity", key, path, plain])).status).toBe(
      0,
    );
    expect((await runVhu(["snapshot", "verify", plain])).status).toBe(0);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
