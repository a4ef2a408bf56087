import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NetNamespace } from "./net-namespace.ts";
import { endProcessesOf } from "./started-machines.ts";
import { startVhu, type VhuProcess } from "./vhu-process.ts";

const LOG_TIMEOUT_MS = 60_000;

const FIXED_PORT = 4950;

/** A receiver that listens, and how it is reached. */
export interface Listening {
  readonly receiver: VhuProcess;
  readonly token: string;
  readonly target: string;
  readonly port: number;
}

function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

/** One of two hosts: a network namespace of its own, and a folder of its own at the path that both call `run`. */
export class LiveHost {
  constructor(
    readonly name: string,
    /** Undefined where both are on this machine's own network. */
    readonly namespace: NetNamespace | undefined,
    readonly address: string,
    readonly folder: string,
    /** Where its own `run` really is. */
    readonly runFolder: string,
  ) {}

  /** The command that runs another on this host. */
  get within(): readonly string[] {
    const script = `mount --bind "${this.runFolder}" "${join(this.folder, "run")}" && exec "$0" "$@"`;
    const within =
      this.namespace === undefined ? ["unshare", "-m"] : ["ip", "netns", "exec", this.namespace.name];
    return [...within, "sh", "-c", script];
  }

  /** More for the environment of what runs on it. */
  readonly environment: Record<string, string> = {};

  get env(): Readonly<Record<string, string>> {
    return { XDG_STATE_HOME: join(this.folder, `state-${this.name}`), ...this.environment };
  }

  /** Limits what it sends by one of its interfaces, e.g. to "1gbit". */
  limit(interfaceName: string, rate: string): void {
    const device = ["dev", interfaceName, "root", "tbf", "rate", rate, "burst", "256k", "latency", "50ms"];
    command("tc", "-n", this.namespace!.name, "qdisc", "replace", ...device);
  }

  /** A path in its `run`, as the tests see it. */
  path(name: string): string {
    return join(this.runFolder, name);
  }

  vhu(...args: string[]): VhuProcess {
    return startVhu(args, { within: this.within, env: this.env });
  }

  /** A `vhu` command to its end. */
  async run(...args: string[]): Promise<{ status: number | string; stdout: string; stderr: string }> {
    await using vhu = this.vhu(...args);
    await vhu.process.exited;
    const status = vhu.process.signalCode ?? vhu.process.exitCode ?? -1;
    return { status, stdout: vhu.stdout(), stderr: vhu.stderr() };
  }

  /** `vhu migrate receive`, listening, and the token that it has printed. */
  async receive(...args: string[]): Promise<Listening> {
    return await this.receiveAt(this.address, ...args);
  }

  /** The same at another address of this host. */
  async receiveAt(address: string, ...args: string[]): Promise<Listening> {
    const listening = await this.#listen(address, args);
    const line = await listening.receiver.waitForStderr(/token: [A-Z2-7]+/, LOG_TIMEOUT_MS);
    return { ...listening, token: line.slice("token: ".length) };
  }

  /** A receiver that knows its senders by their certificates. */
  async receiveAs(certificates: readonly string[], ...args: string[]): Promise<Omit<Listening, "token">> {
    return await this.#listen(this.address, [...certificates, ...args]);
  }

  async #listen(address: string, args: readonly string[]): Promise<Omit<Listening, "token">> {
    const root = ["--root", this.folder, "--sockets", join(this.folder, "run")];
    const port = this.namespace === undefined ? freePort() : FIXED_PORT;
    const target = `tcp:${address}:${port}`;
    const receiver = this.vhu("migrate", "receive", ...root, ...args, target);
    await receiver.waitForStderr(/listening at/, LOG_TIMEOUT_MS);
    return { receiver, target, port };
  }
}

/** Two hosts with a cable between them, or on one network, and a folder that both have. */
export class LiveHosts implements Disposable {
  static #count = 0;
  readonly folder = mkdtempSync(join(tmpdir(), "vhu-live-"));
  readonly a: LiveHost;
  readonly b: LiveHost;
  readonly #cable: readonly [string, string] = [NetNamespace.interfaceName(), NetNamespace.interfaceName()];

  constructor(network: "cable" | "loopback" = "cable") {
    mkdirSync(join(this.folder, "run"));
    if (network === "loopback") {
      this.a = this.#host("a", "127.0.0.1");
      this.b = this.#host("b", "127.0.0.1");
      return;
    }
    const net = `10.77.${LiveHosts.#count++ % 250}`;
    command("ip", "link", "add", this.#cable[0], "type", "veth", "peer", "name", this.#cable[1]);
    this.a = this.#host("a", `${net}.1`, this.#cable[0]);
    this.b = this.#host("b", `${net}.2`, this.#cable[1]);
  }

  other(host: LiveHost): LiveHost {
    return host === this.a ? this.b : this.a;
  }

  /** Limits the cable in both directions, e.g. "1gbit". */
  limit(rate: string): void {
    for (const [index, host] of [this.a, this.b].entries()) host.limit(this.#cable[index]!, rate);
  }

  /** Pulls the cable, or puts it in again. */
  set isCut(cut: boolean) {
    this.a.namespace?.ip("link", "set", this.#cable[0], cut ? "down" : "up");
  }

  [Symbol.dispose](): void {
    endProcessesOf(this.folder);
    this.a.namespace?.[Symbol.dispose]();
    this.b.namespace?.[Symbol.dispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #host(name: string, address: string, interfaceName?: string): LiveHost {
    const namespace = interfaceName === undefined ? undefined : new NetNamespace();
    namespace?.adopt(interfaceName!, `${address}/24`);
    const runFolder = join(this.folder, `run-${name}`);
    mkdirSync(runFolder);
    return new LiveHost(name, namespace, address, this.folder, runFolder);
  }
}

function command(...words: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync({ cmd: words });
  if (exitCode !== 0) throw new Error(`${words.join(" ")} failed: ${stderr}`);
}
