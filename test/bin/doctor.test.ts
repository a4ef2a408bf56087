import { expect, test } from "bun:test";
import { runCheck } from "../../bin/doctor/finding.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

test("doctor: 0 where these tests run, with a table", async () => {
  const { status, stdout, stderr } = await runVhu(["doctor"]);
  expect([status, stderr]).toEqual([0, ""]);
  for (const name of [
    "Linux",
    "Bun",
    "C library",
    "memfd",
    "UNIX sockets",
    "io_uring",
    "zstd",
    "QEMU",
    "KVM",
  ]) {
    expect(stdout).toMatch(new RegExp(`^${name} +(?:ok|note) `, "m"));
  }
  expect(stdout).toContain("vhu can run here");
});

test("doctor --json: the same as a document", async () => {
  const { status, stdout } = await runVhu(["doctor", "--json"]);
  expect(status).toBe(0);
  const { canRun, checks } = JSON.parse(stdout);
  expect(canRun).toBe(true);
  for (const { state, remedy } of checks) expect(remedy === undefined).toBe(state === "ok");
});

test("doctor: what is not essential is a note with its remedy", async () => {
  const { status, stdout } = await runVhu(["doctor", "--json"], {
    env: { PATH: "/nowhere", TMPDIR: "/nowhere" },
  });
  expect(status).toBe(0);
  const { checks } = JSON.parse(stdout) as { checks: { name: string; state: string; remedy?: string }[] };
  const notes = checks.filter(({ state }) => state === "note").map(({ name }) => name);
  expect(notes).toEqual(expect.arrayContaining(["O_TMPFILE", "temporary space", "QEMU"]));
});

test("doctor: 1 where something essential is missing", () => {
  // A file size limit of 0 is what a test can take away: a memfd then cannot grow.
  const limited = `trap "" XFSZ; ulimit -f 0; exec "$0" "$1" doctor`;
  const child = Bun.spawnSync(["bash", "-c", limited, ...PROGRAM]);
  expect(child.stdout.toString()).toMatch(/^memfd +missing +ftruncate failed/m);
  expect(child.stdout.toString()).toContain("vhu cannot run here: 1 thing missing");
  expect(child.exitCode).toBe(1);
});

test("doctor: 2 for an argument", async () => {
  expect((await runVhu(["doctor", "more"])).status).toBe(2);
});

test("a check that throws is a finding, missing only where it is essential", async () => {
  const check = { name: "a", remedy: "get it", look: () => Promise.reject(new Error("no")) };
  expect(await runCheck({ ...check, isEssential: true })).toEqual({
    name: "a",
    isEssential: true,
    state: "missing",
    detail: "no",
    remedy: "get it",
  });
  expect((await runCheck({ ...check, isEssential: false })).state).toBe("note");
});
