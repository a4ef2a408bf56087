import type { Subprocess } from "bun";

/** A network namespace of a test's own. It goes away, with what is in it, when it is disposed of. */
export class NetNamespace implements Disposable {
  static #count = 0;
  readonly name = `vhu-${process.pid}-${NetNamespace.#count++}`;

  constructor() {
    ip("netns", "add", this.name);
    // Without IPv6 the kernel sends nothing that it was not asked for.
    const quiet = "echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6";
    ip("netns", "exec", this.name, "sh", "-c", quiet);
    this.ip("link", "set", "lo", "up");
  }

  /** Only root may make namespaces and taps: a test can skip itself, and one line says why. */
  static get isPossible(): boolean {
    if (process.getuid?.() === 0 && Bun.which("ip") !== null) return true;
    console.error("skipped, network namespaces need root and the ip command");
    return false;
  }

  /** An interface name that no other test has (at most 15 bytes). */
  static interfaceName(): string {
    return `vt${process.pid}x${NetNamespace.#count++}`;
  }

  /** Runs `ip` inside. Throws when it fails. */
  ip(...words: string[]): string {
    return ip("-n", this.name, ...words);
  }

  /** Moves an interface here, gives it an address like "10.0.0.1/24", and sets it up. */
  adopt(interfaceName: string, address: string): void {
    ip("link", "set", interfaceName, "netns", this.name);
    this.ip("address", "add", address, "dev", interfaceName);
    this.ip("link", "set", interfaceName, "up");
  }

  /** Moves an interface here, to a bridge, and sets it up. */
  plug(interfaceName: string, bridge: string): void {
    ip("link", "set", interfaceName, "netns", this.name);
    this.ip("link", "set", interfaceName, "master", bridge, "up");
  }

  /** Starts a program inside; it ends with this process at the latest. */
  start(command: readonly string[]): Subprocess {
    return Bun.spawn({
      cmd: ["setpriv", "--pdeathsig", "KILL", "--", "ip", "netns", "exec", this.name, ...command],
      stdio: ["ignore", "ignore", "ignore"],
    });
  }

  [Symbol.dispose](): void {
    ip("netns", "delete", this.name);
  }
}

function ip(...words: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync({ cmd: ["ip", ...words] });
  if (exitCode !== 0) throw new Error(`ip ${words.join(" ")} failed: ${stderr}`);
  return stdout.toString();
}
