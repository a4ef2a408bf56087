import { describe, expect, test } from "bun:test";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UnixSocket } from "../../src/sys/mod.ts";
import { PROGRAM, runVhu } from "./run-vhu.ts";

const socket = join(tmpdir(), `vhu-run-net-${process.pid}.sock`);
const net = (...args: string[]) => runVhu(["device", "run", "net", ...args]);

describe("vhu device run net: exit status 2", () => {
  test.each([
    { args: [], says: "--tap NAME" },
    { args: ["--stream", "/a", "--stream-listen", "/b"], says: "--tap NAME" },
    { args: ["--stream", "/a", "--mac", "52:54:00"], says: "MAC address" },
    { args: ["--stream", "/a", "--mac", "01:00:5e:00:00:01"], says: "multicast" },
    { args: ["--stream", "/a", "--mtu", "67"], says: "MTU" },
    { args: ["--stream", "/a", "--queue-pairs", "2"], says: "--queue-pairs" },
    { args: ["--tap", "a/b"], says: "network interface" },
    { args: ["--stream", "/a", "--max-bytes", "0"], says: "whole number" },
  ])("$args", async ({ args, says }) => {
    const { status, stderr } = await net("--socket", socket, ...args);
    expect([status, stderr]).toEqual([2, expect.stringContaining(says)]);
  });

  test("no place for the front-end", async () => {
    expect((await net("--stream", "/a")).status).toBe(2);
    expect((await runVhu(["device", "run", "rng"])).status).toBe(2);
  });
});

describe("what they say about themselves", () => {
  test.each(["net", "rng"])("%s", async (type) => {
    const { status, stdout } = await runVhu(["device", "run", type, "--print-capabilities"]);
    expect([status, JSON.parse(stdout)]).toEqual([0, { type, features: [] }]);
  });
});

// The confined program starts itself anew: what the parent process passed has to be there still.
test("a stream that the parent process passes is served, and SIGTERM ends it with 0", async () => {
  const [ours, theirs] = UnixSocket.pair();
  using _ours = ours;
  const child = Bun.spawn({
    cmd: [...PROGRAM, "device", "run", "net", "--json", "--socket", socket, "--stream-fd", "3"],
    stdio: ["ignore", "pipe", "inherit", theirs.fd.number],
  });
  theirs[Symbol.dispose]();
  const reader = child.stdout.getReader();
  const { value } = await reader.read();
  expect(JSON.parse(new TextDecoder().decode(value))).toEqual({ type: "ready", socket });
  child.kill("SIGTERM");
  expect(await child.exited).toBe(0);
});
