/** Ctrl-C where a command waits for a pipe: nothing may hold it up, and there is nothing to take back. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { createPipe } from "../../src/sys/mod.ts";
import { PROGRAM } from "./run-vhu.ts";

const dir = mkdtempSync(join(tmpdir(), "vhu-signals-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const large = join(dir, "large.vhu");
const state = join(dir, "state");
writeFileSync(state, "x");
/** So that the command stands in its system call; sooner, it ends all the same. */
const SETTLE_MS = 700;
const PATIENCE_MS = 10_000;

async function endedBy(words: readonly string[], stalls: "stdin" | "stdout"): Promise<unknown> {
  // Nobody reads from it, or writes into it.
  using pipe = createPipe();
  const child = Bun.spawn([...PROGRAM, "snapshot", ...words], {
    stdin: stalls === "stdin" ? pipe.readEnd.number : "ignore",
    stdout: stalls === "stdout" ? pipe.writeEnd.number : "ignore",
    stderr: "ignore",
  });
  await Bun.sleep(SETTLE_MS);
  child.kill("SIGINT");
  const patience = setTimeout(() => child.kill("SIGKILL"), PATIENCE_MS);
  await child.exited;
  clearTimeout(patience);
  return child.signalCode;
}

test("a pipe that brings nothing", async () => {
  const target = join(dir, "new");
  const lines = [
    ["extract", "--core", "-", target],
    ["convert", "-", target],
    ["convert", "--to", "directory", "-", target],
    ["flatten", "-", target],
    ["replace", "--device", "d", "--state", state, "-", target],
    ["verify", "-"],
  ];
  const ends = await Promise.all(lines.map((words) => endedBy(words, "stdin")));
  expect(ends).toEqual(lines.map(() => "SIGINT"));
  expect(readdirSync(dir)).toEqual(["state"]);
}, 60_000);

test("a pipe that takes nothing", async () => {
  const sizeBytes = 8 << 20;
  {
    using writer = SnapshotWriter.toFile(large, { writer: { name: "vhu", version: "0" } });
    writer.writeMemoryMap([{ id: 0, guestAddress: 0, sizeBytes, name: "ram" }]);
    const memory = new Uint8Array(sizeBytes);
    for (let at = 0; at < sizeBytes; at += 65536) crypto.getRandomValues(memory.subarray(at, at + 65536));
    await writer.writeMemory(0, 0, memory);
    writer.writeManifest({ devices: [], memory: { totalBytes: sizeBytes } });
    writer.finish();
  }
  const lines = [
    ["extract", "--core", large, "-"],
    ["extract", "--region", "ram", large, "-"],
    ["convert", large, "-"],
  ];
  const ends = await Promise.all(lines.map((words) => endedBy(words, "stdout")));
  expect(ends).toEqual(lines.map(() => "SIGINT"));
}, 60_000);
