import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import type { LiveHosts } from "./live-hosts.ts";
import { NetNamespace } from "./net-namespace.ts";

const READY_MS = 30_000;

export interface LinkFaults {
  /** Of the frames, in each direction. */
  readonly lossPercent?: number | undefined;
  /** In each direction: a round trip takes twice as long. */
  readonly delayMs?: number | undefined;
}

export interface LinkReport {
  readonly passed: number;
  readonly lost: number;
}

/** One more cable between two hosts, which loses frames or takes its time: two taps, and a program that carries frames from one to the other. */
export class LossyLink implements AsyncDisposable {
  static #count = 0;
  /** Of the two hosts on it. */
  readonly addresses: Readonly<Record<string, string>>;
  readonly taps: readonly [string, string] = [NetNamespace.interfaceName(), NetNamespace.interfaceName()];
  readonly #program: Subprocess<"ignore", "pipe", "inherit">;

  private constructor({ lossPercent = 0, delayMs = 0 }: LinkFaults) {
    const net = `10.78.${LossyLink.#count++ % 250}`;
    this.addresses = { a: `${net}.1`, b: `${net}.2` };
    const words = [...this.taps, `${lossPercent}`, `${delayMs}`, "20261125"];
    this.#program = Bun.spawn({
      cmd: [
        ...["setpriv", "--pdeathsig", "KILL", "--"],
        ...[process.execPath, join(import.meta.dir, "lossy-link-program.ts"), ...words],
      ],
      stdio: ["ignore", "pipe", "inherit"],
    });
  }

  /** The link, with both hosts on it. `rate` limits it as `LiveHosts.limit` does. */
  static async start(hosts: LiveHosts, faults: LinkFaults, rate = "1gbit"): Promise<LossyLink> {
    const link = new LossyLink(faults);
    try {
      const deadline = performance.now() + READY_MS;
      while (!link.taps.every((tap) => existsSync(`/sys/class/net/${tap}`))) {
        if (link.#program.exitCode !== null || performance.now() > deadline)
          throw new Error("the link did not start");
        await Bun.sleep(10);
      }
      for (const [index, host] of [hosts.a, hosts.b].entries()) {
        host.namespace!.adopt(link.taps[index]!, `${link.addresses[host.name]}/24`);
        host.limit(link.taps[index]!, rate);
      }
      return link;
    } catch (error) {
      await link[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Ends it, and says what it has carried. */
  async end(): Promise<LinkReport> {
    this.#program.kill("SIGTERM");
    return JSON.parse(await this.#program.stdout.text()) as LinkReport;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#program.kill("SIGKILL");
    await this.#program.exited;
  }
}
