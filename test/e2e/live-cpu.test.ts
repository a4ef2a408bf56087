import { expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import { LiveHosts } from "../support/live-hosts.ts";
import { startListening } from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";

const peers = requirePeers(["qemu-system-x86_64"]);
const possible = peers !== undefined && NetNamespace.isPossible;
const TIMEOUT_MS = 120_000;

interface Check {
  readonly side: string;
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

test.skipIf(!possible)(
  "the processor's features are compared before anything moves: what the destination cannot give is named",
  async () => {
    using hosts = new LiveHosts("loopback");
    await using qemu = await startListening({
      dir: hosts.folder,
      name: "vm",
      memoryMib: 64,
      args: ["-S", "-name", "vm"],
    });
    const qemuProgram = peers!["qemu-system-x86_64"].command.at(-1)!;
    /** A QEMU whose host has less, as far as anybody can tell. */
    const lesser = (name: string, ...globals: string[]) => {
      const path = join(hosts.folder, name);
      const words = globals.map((each) => `-global ${each}`).join(" ");
      writeFileSync(path, `#!/bin/sh\nexec ${qemuProgram} ${words} "$@"\n`);
      chmodSync(path, 0o755);
      return path;
    };
    const check = async (...options: string[]) => {
      const { receiver, target } = await hosts.b.receiveAs(["--insecure"], ...options);
      await using _ = receiver;
      const address = `qmp:${qemu.qmpPath}`;
      const ran = await hosts.a.run("migrate", "check", "--json", "--insecure", address, target);
      const { checks } = JSON.parse(ran.stdout) as { checks: Check[] };
      const sent =
        ran.status === 0 ? undefined : await hosts.a.run("migrate", "send", "--insecure", address, target);
      return { status: ran.status, cpu: checks.find(({ name }) => name === "CPU features")!, sent };
    };
    const same = await check();
    expect(same.cpu).toMatchObject({
      side: "destination",
      ok: true,
      detail: expect.stringMatching(/^all \d+ that/),
    });
    expect(same.status).toBe(0);

    const less = await check(
      "--qemu",
      lesser("less", "qemu64-x86_64-cpu.svm=off", "qemu64-x86_64-cpu.cx16=off"),
    );
    expect(less.status).toBe(4);
    expect(less.cpu).toMatchObject({
      ok: false,
      detail: expect.stringMatching(/^(cx16, svm|svm, cx16) are missing here/),
    });
    expect(less.sent!.status).toBe(4);
    expect(less.sent!.stderr).toContain("destination: CPU features: ");

    const none = await check("--qemu", lesser("none", "nonsense"));
    expect(none.status).toBe(4);
    expect(none.cpu).toMatchObject({ ok: false, detail: expect.stringContaining("cannot be had here") });
  },
  TIMEOUT_MS,
);
