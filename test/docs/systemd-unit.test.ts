import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { runVhu } from "../bin/run-vhu.ts";

const ROOT = join(import.meta.dir, "../..");

/** The unit in the docs: its keys by section, each once. */
function unitOf(path: string): Map<string, Map<string, string>> {
  const text = /```ini\n([\s\S]*?)```/
    .exec(readFileSync(join(ROOT, path), "utf8"))![1]!
    .replaceAll("\\\n", " ");
  const sections = new Map<string, Map<string, string>>();
  let section = new Map<string, string>();
  for (const line of text.split("\n").filter((each) => each !== "" && !each.startsWith("#"))) {
    const [, name] = /^\[(\w+)\]$/.exec(line) ?? [];
    const [, key = "", value = ""] = /^(\w+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined) {
      section = new Map();
      sections.set(name, section);
    } else {
      expect([line, key]).toEqual([line, expect.stringMatching(/./)]);
      expect(section.has(key)).toBe(false);
      section.set(key, value);
    }
  }
  return sections;
}

test("the systemd unit in the docs: what it starts is a command with options that are there, and it is told as it is", async () => {
  const unit = unitOf("docs/migration-protocol.md");
  expect([...unit.keys()]).toEqual(["Unit", "Service", "Install"]);
  const service = unit.get("Service")!;
  const [program, ...words] = service.get("ExecStart")!.split(/\s+/);
  expect(program).toEndWith("/vhu");
  expect(words.slice(0, 2)).toEqual(["migrate", "receive"]);
  const { stdout, status } = await runVhu(["migrate", "receive", "--help"]);
  expect(status).toBe(0);
  const options = words.filter((word) => word.startsWith("--"));
  expect(options.length).toBeGreaterThan(4);
  for (const option of options) expect(stdout).toMatch(new RegExp(`^ +${option} <`, "m"));
  // The receiver itself says that it is ready; the machines outlive it; its sockets' folder is one that it makes.
  const wanted = {
    Type: "notify",
    NotifyAccess: "main",
    KillMode: "process",
    RuntimeDirectoryPreserve: "yes",
  };
  for (const [key, value] of Object.entries(wanted)) expect([key, service.get(key)]).toEqual([key, value]);
  expect(Number(service.get("WatchdogSec"))).toBeGreaterThan(1);
  expect(words[words.indexOf("--sockets") + 1]).toBe(`/run/${service.get("RuntimeDirectory")}`);
  expect(unit.get("Install")!.get("WantedBy")).toBe("multi-user.target");
});
