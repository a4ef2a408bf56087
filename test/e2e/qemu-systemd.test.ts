import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { PROGRAM, runVhu } from "../bin/run-vhu.ts";
import { requirePeers } from "../peers/mod.ts";
import {
  BOOT_TIMEOUT_MS,
  beats,
  livingGuest,
  startListening,
  waitForBeats,
} from "../support/living-guest.ts";
import { isAlive, killQuietly, waitUntil } from "../support/started-machines.ts";
import { startVhu } from "../support/vhu-process.ts";
import { endAllOf } from "../support/vm-folder.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);

let dir: string;
let file: string;
const started: number[] = [];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-qs-"));
  file = join(dir, "vm.vhu");
  writeFileSync(join(dir, "disk.raw"), "");
  truncateSync(join(dir, "disk.raw"), 16 << 20);
});
afterEach(() => endAllOf(dir, started));

/** As systemd-run(1) --scope: notes its words, and becomes the command that stands after "--". */
const SYSTEMD_RUN = `#!/bin/sh
for word; do printf '%s\\n' "$word"; done >>"$NOTES.$$"
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
`;

/** A mount namespace of its own, in which systemd seems to run (sd_booted(3)). */
const WITH_SYSTEMD = [
  ...["unshare", "--mount", "--propagation", "private", "sh", "-c"],
  'mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec "$@"',
  "sh",
];

test.skipIf(!peers)(
  "--systemd: QEMU and each back-end are started by systemd-run, in scopes with names of their own; pids stay",
  async () => {
    const program = join(dir, "systemd-run");
    writeFileSync(program, SYSTEMD_RUN);
    chmodSync(program, 0o755);
    const env = {
      XDG_STATE_HOME: join(dir, "state"),
      NOTES: join(dir, "scope"),
      PATH: `${dir}:${process.env.PATH}`,
    };
    const socket = join(dir, "blk.sock");
    await using blk = startVhu([
      ...["device", "run", "blk", "--socket", socket, "--image", join(dir, "disk.raw")],
    ]);
    await blk.waitForStderr(/ready at/, BOOT_TIMEOUT_MS);
    await using source = await startListening({
      ...{ dir, name: "vm", guest: livingGuest({ dir, modules: ["virtio_blk"] }), memoryMib: 128 },
      args: [
        ...["-name", "web 1", "-chardev", `socket,id=c0,path=${socket}`],
        ...["-device", "vhost-user-blk-pci,chardev=c0"],
      ],
    });
    const { nonce } = await waitForBeats(source, 2);
    const saved = await runVhu(["migrate", "save", "--stop", `qmp:${source.qmpPath}`, file], { env });
    expect(saved).toMatchObject({ status: 0, stderr: "" });
    await source.waitForExit(BOOT_TIMEOUT_MS);
    await blk.end("SIGTERM");
    const child = Bun.spawn([...WITH_SYSTEMD, ...PROGRAM, "migrate", "load", "--json", "--systemd", file], {
      stdout: "pipe",
      stderr: "pipe",
      env: { ...process.env, ...env },
    });
    const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    expect({ status: await child.exited, stderr }).toEqual({ status: 0, stderr: "" });
    const { pid, backends } = JSON.parse(stdout.trim().split("\n").at(-1)!) as {
      pid: number;
      backends: { pid: number }[];
    };
    started.push(pid);
    await waitUntil(() => beats(source).length >= 3);
    expect(beats(source)[0]!.nonce).toBe(nonce);
    for (const [of, unit, command] of [
      [pid, /^vhu-web_1-\d+$/, /^qemu-system-x86_64$/],
      [backends[0]!.pid, /^vhu-web_1-c0-\d+$/, /^bun/],
    ] as const) {
      expect(isAlive(of)).toBe(true);
      const words = readFileSync(`${env.NOTES}.${of}`, "utf8").trim().split("\n");
      expect(words.slice(0, 4)).toEqual(["--scope", "--quiet", "--collect", "--unit"]);
      expect(words[4]).toMatch(unit);
      expect(words[5]).toBe("--");
      expect(basename(words[6]!)).toMatch(command);
    }
    killQuietly(pid);
    await waitUntil(() => !isAlive(backends[0]!.pid));
  },
  3 * BOOT_TIMEOUT_MS,
);
