import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { landlockAbi } from "../../src/sys/mod.ts";
import { startVhu } from "../support/vhu-process.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

const TIMEOUT_MS = 60_000;
const withLandlock = test.skipIf(landlockAbi() < 6);

let dir: string;
let image: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-confine-"));
  image = join(dir, "disk.raw");
  writeFileSync(image, new Uint8Array(1 << 20));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

withLandlock("a confined program has what it needs, and nothing else", async () => {
  const stranger = join(dir, "stranger");
  writeFileSync(stranger, "secret");
  const inherited = openSync(stranger, "r");
  const program = join(import.meta.dir, "confined-program.ts");
  const child = Bun.spawn([process.execPath, program, image, join(dir, "s"), stranger], {
    stdio: ["ignore", "pipe", "inherit", inherited],
  });
  closeSync(inherited);
  const report = JSON.parse(await new Response(child.stdout as ReadableStream).text());
  expect(await child.exited).toBe(0);
  const { pid, noNewPrivs, marker, allowed, denied, worker, limits } = report;
  expect({ pid, noNewPrivs, marker, worker }).toEqual({
    pid: child.pid,
    noNewPrivs: "1",
    marker: "gone",
    worker: "EACCES",
  });
  expect(new Set(Object.values(allowed)), JSON.stringify(allowed)).toEqual(new Set(["ok"]));
  expect(denied).toEqual({
    passwd: "EACCES",
    stranger: "EACCES",
    folder: "EACCES",
    newFile: "EACCES",
    otherEnvironment: "EACCES",
    program: expect.stringMatching(/EACCES|EPERM/),
    signal: "EPERM",
    tcp: "EACCES",
  });
  expect(limits).toMatch(/^Max core file size\s+0\s+0\s/m);
  expect(Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1])).toBeLessThanOrEqual(4096);
});

test.each([
  ["confined unless it is told otherwise", [], "1"],
  ["free with --no-sandbox", ["--no-sandbox"], "0"],
])("vhu device run: %s", async (_, args, expected) => {
  const words = ["device", "run", "blk", "--image", image, "--socket", join(dir, "s"), ...args];
  await using vhu = startVhu(words);
  await vhu.waitForStderr(/ready at/, TIMEOUT_MS);
  const status = readFileSync(`/proc/${vhu.process.pid}/status`, "utf8");
  expect(/^NoNewPrivs:\s+(\d)/m.exec(status)?.[1]).toBe(expected);
});

test("a spool folder that others can use is refused", async () => {
  const spool = join(dir, `vhu-spool-${process.getuid!()}`);
  mkdirSync(spool);
  chmodSync(spool, 0o777);
  const words = ["device", "run", "blk", "--image", image, "--socket", join(dir, "s")];
  const { status, stderr } = await runVhu(words, { env: { TMPDIR: dir } });
  expect([status, stderr]).toEqual([1, expect.stringContaining("--no-sandbox")]);
});

test("doctor tells of landlock and seccomp", async () => {
  const { stdout } = await runVhu(["doctor", "--json"]);
  const { checks } = JSON.parse(stdout) as { checks: { name: string; detail: string }[] };
  const named = checks.filter(({ name }) => name === "landlock" || name === "seccomp");
  expect(named).toHaveLength(2);
  if (landlockAbi() > 0) expect(named[0]?.detail).toContain(`ABI ${landlockAbi()}`);
});

test("without landlock it runs on, and says so", async () => {
  // What the second start is told on a kernel that has none.
  const words = `VHU_CONFINED=$$:0 exec "$@"`;
  const args = [
    "device",
    "run",
    "blk",
    "--image",
    image,
    "--connect",
    join(dir, "s"),
    "--connect-timeout-ms",
    "1",
  ];
  const child = Bun.spawn(["sh", "-c", words, "sh", ...PROGRAM, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  expect(await child.stderr.text()).toContain("this kernel has no landlock");
  expect(await child.exited).toBe(5);
});

test("without a place for temporary files it runs on", async () => {
  const args = ["--connect", join(dir, "s"), "--connect-timeout-ms", "1"];
  const ran = await runVhu(["device", "run", "blk", "--image", image, ...args], {
    env: { TMPDIR: "/nowhere" },
  });
  expect([ran.status, ran.stderr]).toEqual([5, expect.stringContaining("no front-end")]);
});
