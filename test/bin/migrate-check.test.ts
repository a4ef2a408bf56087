import { expect, test } from "bun:test";
import { runVhu } from "./run-vhu.ts";

test.each([
  [["file.vhu"], 2, "wrong kind"],
  [["qmp:/nonexistent/qmp"], 5, "no socket"],
  [["machine:/nonexistent/machine"], 5, "no socket"],
  [["--type", "fs", "qmp:/nonexistent/qmp"], 2, "--type"],
  [["--disks", "copied", "qmp:/nonexistent/qmp"], 2, "--disks copied is not known"],
] as const)("migrate check %p ends with %d", async (words, status, text) => {
  const ran = await runVhu(["migrate", "check", ...words]);
  expect(ran.stderr).toContain(text);
  expect(ran.status).toBe(status);
  expect(ran.stdout).toBe("");
});
