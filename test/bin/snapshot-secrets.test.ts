import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SnapshotReader, SnapshotWriter } from "../../migrate/snapshot/mod.ts";
import { runVhu } from "./run-vhu.ts";

const dir = mkdtempSync(join(tmpdir(), "vhu-secrets-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const at = (name: string) => join(dir, name);
const vhu = (...words: string[]) => runVhu(["snapshot", ...words], { env: { XDG_STATE_HOME: at("state") } });

function write(path: string, socket: string): void {
  using writer = SnapshotWriter.toFile(path, {
    writer: { name: "vhu", version: "0" },
    labels: { password: "hush-label" },
    vmm: { name: "QEMU", commandLine: ["qemu", "-object", "secret,id=s,data=hush-data"] },
  });
  const lists = { virtioDevices: [], sockets: [], disks: [] };
  const xml = "<domain><graphics type='vnc' passwd='hush-vnc'/></domain>";
  writer.writeManifest({
    machine: {
      ...{ kind: "qemu", name: "m", machineType: "pc-q35-10.0", runState: "paused", ...lists },
      ...{ commandLine: ["qemu", "-vnc", ":1,password=hush-word"], libvirt: { xml, wasRunning: true } },
    },
    devices: [
      {
        ...{ id: 0, name: "d", type: "blk", backend: { identity: "x", executable: "http://a:hush-url@b/" } },
        ...{
          features: "0x0",
          protocolFeatures: "0x0",
          queues: [],
          config: "",
          stateFormat: "x",
          stateBytes: 0,
        },
        socket,
      },
    ],
    memory: { totalBytes: 0 },
  });
  writer.finish();
}

beforeAll(() => {
  write(at("a.vhu"), "token=hush-a");
  write(at("b.vhu"), "token=hush-b");
  using reader = SnapshotReader.open(at("a.vhu"));
  const bytes = readFileSync(at("a.vhu"));
  bytes[reader.indexOffset + 30]! ^= 1;
  writeFileSync(at("damaged.vhu"), bytes);
});

test.each<[string, readonly string[], number]>([
  ["the page", ["inspect", at("a.vhu")], 0],
  ["JSON", ["inspect", "--json", at("a.vhu")], 0],
  ["the page for a browser", ["inspect", "--html", at("a.html"), at("a.vhu")], 0],
  ["of a damaged file", ["inspect", "--json", "--html", at("damaged.html"), at("damaged.vhu")], 3],
  ["the manifest", ["inspect", "--section", "manifest", at("a.vhu")], 0],
  ["the manifest as JSON", ["inspect", "--section", "manifest", "--json", at("a.vhu")], 0],
  ["the header", ["inspect", "--section", "header", at("a.vhu")], 0],
  ["what differs", ["diff", "--json", at("a.vhu"), at("b.vhu")], 6],
])("%s shows no secret", async (_name, words, status) => {
  const ran = await vhu(...words);
  expect(ran.status).toBe(status);
  const page = words.includes("--html") ? readFileSync(words[words.indexOf("--html") + 1]!, "utf8") : "";
  expect(ran.stdout + ran.stderr + page).not.toContain("hush");
  expect(ran.stdout + page).toContain("(redacted)");
});

test("--show-secrets shows them; bytes that hold some are not shown without it: 2", async () => {
  const { stdout } = await vhu("inspect", "--json", "--show-secrets", at("a.vhu"));
  for (const secret of ["hush-label", "hush-data", "hush-word", "hush-vnc", "hush-url"])
    expect(stdout).toContain(secret);
  const hidden = await vhu("inspect", "--section", "header", "--hex", at("a.vhu"));
  expect([hidden.status, hidden.stdout]).toEqual([2, ""]);
  expect(hidden.stderr).toContain("the bytes of the header hold secrets: give --show-secrets");
  const bytes = await vhu("inspect", "--section", "header", "--hex", "--show-secrets", at("a.vhu"));
  expect(bytes).toMatchObject({ status: 0, stderr: "" });
  expect((await vhu("inspect", "--section", "end", "--hex", at("a.vhu"))).status).toBe(0);
});
