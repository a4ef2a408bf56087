import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Subprocess } from "bun";
import { baseFeatures } from "../../src/frontend/mod.ts";
import { connectUnix, Deadline, listeningPaths } from "../../src/sys/mod.ts";
import { Driver, DriverMemory, type DriverState } from "../support/driver/mod.ts";
import { ROOT } from "../support/source-files.ts";

const TIMEOUT_MS = 60_000;
const MAX_LINES = 60;
const MEMORY_BYTES = 1 << 20;
const OPTIONS = { type: { name: "echo", id: 0, minQueues: 1 }, queueCount: 1, ringFeatures: baseFeatures };

const guide = readFileSync(join(ROOT, "docs/device-authors-guide.md"), "utf8");
const program = /^```ts file=echo\.ts\n(.*?)^```$/ms.exec(guide)?.[1] ?? "";

let dir: string;
let children: Subprocess[];
beforeEach(() => {
  // Inside the package, so that it finds "vhu" as a user's program would; a dot keeps it from the checks of the sources.
  dir = mkdtempSync(join(ROOT, "test/docs/.guide-"));
  children = [];
  writeFileSync(join(dir, "echo.ts"), program);
});
afterEach(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
    await child.exited;
  }
  rmSync(dir, { recursive: true, force: true });
});

async function serve(socket: string): Promise<Subprocess> {
  const child = Bun.spawn([process.execPath, join(dir, "echo.ts"), socket], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  children.push(child);
  const deadline = new Deadline(TIMEOUT_MS);
  // The path is there before anybody listens at it.
  const isUp = () => listeningPaths().has(socket);
  while (!isUp() && child.exitCode === null && !deadline.expired) await Bun.sleep(10);
  return child;
}

function answered(driver: Driver): number {
  return new DataView(driver.frontend.readConfig(0, 4).slice().buffer).getUint32(0, true);
}

/** One request: `text` out, room for the answer. */
function echo(driver: Driver, text: string): string {
  const { memory } = driver;
  const [out, answer] = [memory.allocate(text.length), memory.allocate(64)];
  memory.write(out, new TextEncoder().encode(text));
  const count = driver.run(0, [
    { guestAddress: out, sizeBytes: text.length, writable: false },
    { guestAddress: answer, sizeBytes: 64, writable: true },
  ]);
  return new TextDecoder().decode(memory.read(answer, count));
}

test("the program of the guide has fewer than 60 lines", () => {
  const lines = program.trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(30);
  expect(lines.length).toBeLessThan(MAX_LINES);
});

test("the program of the guide passes the type checker", async () => {
  const config = { extends: "../../../tsconfig.json", include: ["./echo.ts"] };
  writeFileSync(join(dir, "tsconfig.json"), JSON.stringify(config));
  const child = Bun.spawn([join(ROOT, "node_modules/.bin/tsc"), "--noEmit", "-p", dir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const said = await child.stdout.text();
  // Only of itself: what it imports is checked elsewhere.
  expect(said.split("\n").filter((line) => line.includes("echo.ts"))).toEqual([]);
});

test(
  "the device of the guide answers, is saved, killed, loaded, and goes on",
  async () => {
    const sockets = mkdtempSync(join(tmpdir(), "vhu-guide-"));
    using _cleanUp = { [Symbol.dispose]: () => rmSync(sockets, { recursive: true, force: true }) };
    const first = await serve(join(sockets, "a"));
    using before = new DriverMemory(MEMORY_BYTES);
    const chunks: Uint8Array[] = [];
    let state: DriverState;
    {
      using driver = new Driver(connectUnix(join(sockets, "a")), before, OPTIONS);
      driver.start();
      expect([echo(driver, "hello"), echo(driver, "guide"), answered(driver)]).toEqual(["olleh", "ediug", 2]);
      driver.sleep();
      await driver.frontend.saveState((bytes) => chunks.push(bytes.slice()));
      state = driver.exportState();
    }
    first.kill("SIGKILL");
    await first.exited;

    const second = await serve(join(sockets, "b"));
    using memory = new DriverMemory(MEMORY_BYTES, before.regions[0]!.fd.duplicate());
    {
      using driver = new Driver(connectUnix(join(sockets, "b")), memory, { ...OPTIONS, state });
      expect(answered(driver)).toBe(0);
      await driver.frontend.loadState(chunks);
      driver.start();
      expect([echo(driver, "again"), answered(driver)]).toEqual(["niaga", 3]);
    }
    // What is damaged on the way shows nowhere.
    using driver = new Driver(connectUnix(join(sockets, "b")), memory, { ...OPTIONS, state });
    const damaged = Buffer.concat(chunks);
    damaged[damaged.length - 30]! ^= 1;
    await expect(driver.frontend.loadState([damaged])).rejects.toThrow();
    expect(answered(driver)).toBe(3);
    second.kill("SIGTERM");
    expect(await second.exited).toBe(0);
    expect(existsSync(join(sockets, "b"))).toBe(false);
  },
  2 * TIMEOUT_MS,
);
