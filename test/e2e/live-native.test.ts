import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { hopNative } from "../support/live-hops.ts";
import { LiveHosts } from "../support/live-hosts.ts";
import { LiveMachine } from "../support/live-machine.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { TcpRelay } from "../support/tcp-relay.ts";

const possible = NetNamespace.isPossible;
const TEST_TIMEOUT_MS = 180_000;
const FILL_MIB = 24;
const CUTS = 8;

test.skipIf(!possible)(
  "a native machine under full load moves there and back: nothing lost, torn or repeated",
  async () => {
    const { hops, downtimesMs } = await hopNative(4);
    expect(hops).toBe(4);
    expect(downtimesMs.every((downtimeMs) => downtimeMs > 0)).toBe(true);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible)(
  "connections that are cut again and again are taken up again, and the machine arrives",
  async () => {
    using hosts = new LiveHosts("loopback");
    await using machine = await LiveMachine.start(hosts, { memoryMib: 512 });
    const content = await machine.fill(10 * FILL_MIB);
    const noted = join(hosts.folder, "arrived");
    const hook = `echo "$VHU_NAME $VHU_ADDRESS" > ${noted}`;
    const { receiver, token, port } = await hosts.b.receive("--once", "--on-arrival", hook);
    await using _ = receiver;
    using relay = await TcpRelay.start({ host: "127.0.0.1", port, delayMs: 2 });
    await using sender = hosts.a.vhu(
      "migrate",
      "send",
      "--json",
      "--token",
      token,
      machine.address,
      `tcp:127.0.0.1:${relay.port}`,
    );
    await receiver.waitForStderr(/a migration begins/, 30_000);
    for (let cut = 0; cut < CUTS && sender.process.exitCode === null; cut++) {
      await Bun.sleep(120);
      relay.cut();
    }
    await sender.process.exited;
    expect(sender.stderr()).toContain("was taken up again");
    expect(sender.process.exitCode).toBe(0);
    await receiver.process.exited;
    expect(receiver.process.exitCode).toBe(0);
    machine.host = hosts.b;
    expect((await machine.runners()).map(({ name }) => name)).toEqual(["b"]);
    expect(await machine.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0, failures: [] });
    expect(await machine.contentOf(10 * FILL_MIB)).toBe(content);
    expect(readFileSync(noted, "utf8")).toBe(`m ${machine.address}\n`);
    const report = JSON.parse(sender.stdout().trim().split("\n").at(-1)!);
    expect(report.reconnections).toBeGreaterThan(0);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible)(
  "what is in the way is said before anything moves: exit status 4, on both sides; and the machine runs on",
  async () => {
    using hosts = new LiveHosts();
    await using machine = await LiveMachine.start(hosts);
    const { receiver, token, target } = await hosts.b.receive("--memory-max", "16M", "--allow", "qemu");
    await using _ = receiver;
    const check = await hosts.a.run("migrate", "check", "--json", "--token", token, machine.address, target);
    expect(check.status).toBe(4);
    const { ok, checks } = JSON.parse(check.stdout);
    expect(ok).toBe(false);
    const failed = checks.filter((each: { ok: boolean }) => !each.ok);
    expect(failed.map(({ name }: { name: string }) => name).sort()).toEqual(["memory", "policy"]);
    const again = (await receiver.waitForStderr(/token: [A-Z2-7]+\n[\s\S]*token: [A-Z2-7]+/, 10_000))
      .split("token: ")
      .at(-1)!;
    const sent = await hosts.a.run("migrate", "send", "--token", again, machine.address, target);
    expect(sent.status).toBe(4);
    expect(sent.stderr).toContain("destination: policy: machine machines may not arrive here");
    expect((await machine.runners()).map(({ name }) => name)).toEqual(["a"]);
    expect(await receiver.end("SIGTERM")).toBe(143);
    // Nobody listens any more; and a sender must say how the receiver is known.
    expect((await hosts.a.run("migrate", "send", "--token", again, machine.address, target)).status).toBe(5);
    expect((await hosts.a.run("migrate", "send", machine.address, target)).status).toBe(2);
    await machine.reaches((await machine.sequence()) + 20);
  },
  TEST_TIMEOUT_MS,
);

test.skipIf(!possible)(
  "what is to be expected is said before, and what is known while it moves; a native machine has no dirty limit",
  async () => {
    using hosts = new LiveHosts("loopback");
    await using machine = await LiveMachine.start(hosts);
    await machine.fill(FILL_MIB);
    const { receiver, token, target } = await hosts.b.receive();
    await using _ = receiver;
    const check = await hosts.a.run(
      "migrate",
      "check",
      "--downtime-max",
      "70",
      "--token",
      token,
      machine.address,
      target,
    );
    expect(check.stdout).toMatch(/the way there takes \S+ .iB\/s, a round trip \S+ .s\n/);
    expect(check.stdout).toMatch(/64 MiB of memory are in use and change at an unknown speed: expected time/);
    expect(check.stdout).toMatch(/expected downtime \S+ ms, and what the other side takes/);
    const send = async (count: number, ...words: string[]) => {
      const all = (await receiver.waitForStderr(tokens(count), 10_000)).split("token: ");
      return await hosts.a.run("migrate", "send", "--token", all.at(-1)!, ...words, machine.address, target);
    };
    const refused = await send(2, "--dirty-limit");
    expect(refused.status).toBe(4);
    expect(refused.stderr).toContain("dirty-limit is for QEMU with KVM");
    expect((await send(3, "--dirty-limit", "--auto-converge")).status).toBe(2);
    const sent = await send(3, "--json", "--auto-converge", "--compress", "none", "--bandwidth-max", "40M");
    const lines = sent.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines[0].preflight).toMatchObject({ ok: true, inUseBytes: 64 << 20 });
    expect(lines[0].preflight.expectedDowntimeMs).toBeGreaterThan(0);
    const seen = lines.filter(({ message }) => message === "send").at(-1);
    for (const name of ["passes", "remainingBytes", "dirtyBytesPerSecond", "wireBytesPerSecond", "ratio"]) {
      expect(seen[name]).toBeNumber();
    }
    expect(lines.at(-1)).toMatchObject({ type: "summary", memoryBytes: 64 << 20 });
    await receiver.waitForStderr(tokens(4), 10_000);
    await receiver.end("SIGTERM");
    expect(receiver.stdout()).toContain("memory 64 MiB, of which ");
  },
  TEST_TIMEOUT_MS,
);

/** All that the receiver has printed up to its token of this number. */
function tokens(count: number): RegExp {
  return new RegExp(`(?:token: [A-Z2-7]+[^]*?){${count - 1}}token: [A-Z2-7]+`);
}

test.skipIf(!possible)(
  "Ctrl-C on either side cancels: the machine runs on, and nothing of it is left on the other host",
  async () => {
    using hosts = new LiveHosts();
    hosts.limit("20mbit");
    await using machine = await LiveMachine.start(hosts);
    await machine.fill(FILL_MIB);
    for (const side of ["sender", "receiver"] as const) {
      const { receiver, token, target } = await hosts.b.receive("--once");
      await using _ = receiver;
      const send = ["migrate", "send", "--bandwidth-max", "1M", "--token", token, machine.address, target];
      await using sender = hosts.a.vhu(...send);
      await receiver.waitForStderr(/a migration begins/, 30_000);
      await Bun.sleep(800);
      const told = side === "sender" ? sender : receiver;
      expect(await told.end("SIGINT")).toBe(130);
      await Promise.race([sender.process.exited, Bun.sleep(20_000)]);
      expect(sender.process.exitCode).not.toBe(0);
      expect((await machine.runners()).map(({ name }) => name)).toEqual(["a"]);
      await machine.reaches((await machine.sequence()) + 20);
      await receiver.end("SIGINT");
      expect(await machine.statusOn(hosts.b)).toBeUndefined();
    }
    const list = await hosts.a.run("migrate", "list", "--json");
    expect(list.stdout).toContain('"cancelled"');
    expect(await machine.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0, failures: [] });
  },
  TEST_TIMEOUT_MS,
);
