import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { identityDifference, ProgramIdentities, processFacts } from "../../../migrate/backends/mod.ts";
import { LocalPrograms } from "../../../migrate/policy/mod.ts";
import { UnixListener } from "../../../src/sys/mod.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-pi-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const SHELL = Bun.which("bash") ?? "/bin/sh";

/** A "virtiofsd" that is a shell: it runs as such, and tells its version. */
function fakeVirtiofsd(name: string, version: string): string {
  const path = join(dir, name);
  const mark = join(dir, "asked");
  writeFileSync(
    path,
    `[ "$1" = --version ] && { echo "virtiofsd ${version}"; : >${mark}; exit; }\nread line\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

function programs(...command: string[]): LocalPrograms {
  const file = join(dir, "programs.toml");
  writeFileSync(file, `virtiofsd = ${JSON.stringify(command)}\n`);
  return new LocalPrograms([process.execPath, join(dir, "vhu.ts")], file, "9.8.7");
}

async function serving<T>(command: readonly string[], work: (pid: number) => Promise<T>): Promise<T> {
  const child = Bun.spawn([...command], { stdin: "pipe", stdout: "ignore", stderr: "ignore" });
  try {
    while (processFacts(child.pid)?.commandLine.at(-1) !== command.at(-1)) await Bun.sleep(5);
    return await work(child.pid);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

test("a program that this host starts itself is asked for its version; its file is hashed", async () => {
  const daemon = fakeVirtiofsd("virtiofsd", "1.13.2");
  const identities = new ProgramIdentities(programs(SHELL, daemon));
  await serving([SHELL, daemon], async (pid) => {
    const identity = await identities.of(processFacts(pid)!);
    expect(identity).toEqual({ version: "1.13.2", build: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) });
    expect(await identities.ofRole("virtiofsd")).toEqual(identity);
  });
});

test("any other is never run: it is known by its file alone", async () => {
  const daemon = fakeVirtiofsd("virtiofsd", "6.6.6");
  const installed = fakeVirtiofsd("other-virtiofsd", "1.13.2");
  rmSync(join(dir, "asked"), { force: true });
  const identities = new ProgramIdentities(programs(SHELL, installed));
  await serving([SHELL, daemon], async (pid) => {
    const { version, build } = await identities.of(processFacts(pid)!);
    expect(version).toBeUndefined();
    expect(build).toStartWith("sha256:");
    expect(existsSync(join(dir, "asked"))).toBe(false);
    const here = await identities.ofRole("virtiofsd");
    expect(here.version).toBe("1.13.2");
    expect(identityDifference({ version, build }, here)).toContain("another build");
  });
  // The same words in front, another program behind them.
  const copy = join(dir, "sh");
  copyFileSync(SHELL, copy);
  await serving([copy, installed], async (pid) => {
    const { version } = await new ProgramIdentities(programs(SHELL, installed)).of(processFacts(pid)!);
    expect(version).toBeUndefined();
  });
});

test("a vhu of this very program has its version; what is not installed, or not to be seen, has none", async () => {
  const script = join(dir, "vhu.ts");
  writeFileSync(script, "process.stdin.resume()");
  const identities = new ProgramIdentities(programs("/nonexistent/virtiofsd"));
  expect(await identities.ofRole("virtiofsd")).toEqual({ version: undefined, build: undefined });
  await serving([process.execPath, script], async (pid) => {
    expect(await identities.of(processFacts(pid)!)).toEqual({ version: "9.8.7" });
  });
  expect(await identities.ofListener(join(dir, "nobody"))).toEqual({});
  using _listener = UnixListener.listen(join(dir, "socket"));
  // This process is no back-end that is known.
  const { version } = await identities.ofListener(join(dir, "socket"));
  expect(version).toBeUndefined();
});

test("what is different is said only where it is known", () => {
  expect(identityDifference({ version: "1.2" }, { version: "1.3" })).toBe("1.3 here, 1.2 at the save");
  expect(identityDifference({ version: "1.2", build: "a" }, { version: "1.2", build: "b" })).toBeUndefined();
  expect(identityDifference({ version: "1.2" }, {})).toBeUndefined();
  expect(identityDifference({}, { version: "1.2", build: "b" })).toBeUndefined();
});
