import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Subprocess } from "bun";

const ROOT = resolve(import.meta.dir, "../..");
/** How often the output is looked at. Files, not pipes: the process must not stall while a test blocks its thread. */
const POLL_MS = 10;

/** A `vhu` command that runs for longer. */
export interface VhuProcess extends AsyncDisposable {
  readonly process: Subprocess;
  stdout(): string;
  stderr(): string;
  /** Waits until stderr matches. Throws when the process ends first, or after the deadline. */
  waitForStderr(pattern: RegExp, timeoutMs: number): Promise<string>;
  /** Sends a signal and waits for the end; the exit status, or the signal's name. */
  end(signal: NodeJS.Signals): Promise<number | string>;
}

export interface StartOptions {
  /** What to run it by, e.g. ["ip", "netns", "exec", "a"]. */
  readonly within?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts `vhu ARGS…`. It ends with this process at the latest. */
export function startVhu(args: readonly string[], { within = [], env }: StartOptions = {}): VhuProcess {
  const dir = mkdtempSync(join(tmpdir(), "vhu-run-"));
  const files = { stdout: join(dir, "out"), stderr: join(dir, "err") };
  const [out, err] = [openSync(files.stdout, "w"), openSync(files.stderr, "w")];
  const child = Bun.spawn({
    cmd: [
      ...["setpriv", "--pdeathsig", "KILL", "--", ...within],
      ...[join(ROOT, "node_modules/.bin/bun"), join(ROOT, "bin/vhu.ts"), ...args],
    ],
    env: { ...process.env, ...env },
    stdio: ["ignore", out, err],
  });
  closeSync(out);
  closeSync(err);
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  const vhu: VhuProcess = {
    process: child,
    stdout: () => readFileSync(files.stdout, "utf8"),
    stderr: () => readFileSync(files.stderr, "utf8"),
    async waitForStderr(pattern, timeoutMs) {
      const deadline = performance.now() + timeoutMs;
      for (;;) {
        const ended = hasEnded();
        const match = vhu.stderr().match(pattern);
        if (match !== null) return match[0];
        if (ended || performance.now() > deadline) {
          const why = ended ? "it ended first" : `not in ${timeoutMs} ms`;
          throw new Error(`vhu ${args.join(" ")} did not write ${pattern}: ${why}\n${vhu.stderr()}`);
        }
        await Bun.sleep(POLL_MS);
      }
    },
    async end(signal) {
      if (!hasEnded()) child.kill(signal);
      await child.exited;
      return child.signalCode ?? child.exitCode ?? -1;
    },
    async [Symbol.asyncDispose]() {
      await vhu.end("SIGKILL");
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return vhu;
}
