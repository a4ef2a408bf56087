import { expect, test } from "bun:test";
import { readFileSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { UnixDatagram } from "../../src/sys/mod.ts";
import { type LiveHost, LiveHosts } from "../support/live-hosts.ts";
import { LiveMachine } from "../support/live-machine.ts";
import { NetNamespace } from "../support/net-namespace.ts";
import { waitUntil } from "../support/started-machines.ts";

const TIMEOUT_MS = 120_000;
const WATCHDOG_MICROSECONDS = 400_000;

/** A service manager that listens: all that it was told. */
class Manager implements Disposable {
  readonly path: string;
  readonly #socket: UnixDatagram;
  readonly told: string[] = [];

  constructor(folder: string) {
    this.path = join(folder, "notify");
    this.#socket = UnixDatagram.bind(this.path);
  }

  async hears(pattern: RegExp): Promise<void> {
    await waitUntil(() => {
      for (let text = this.#socket.receive(); text !== undefined; text = this.#socket.receive())
        this.told.push(text);
      return this.told.some((text) => pattern.test(text));
    }, TIMEOUT_MS);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** Sends a machine, and tells what came of it. */
async function send(from: LiveHost, machine: LiveMachine, target: string, ...words: string[]) {
  return await from.run("migrate", "send", "--insecure", ...words, machine.address, target);
}

test.skipIf(!NetNamespace.isPossible)(
  "as a service: the manager hears how it goes; two machines arrive at once, one more is refused; limits on memory and disks; the hook is run for each",
  async () => {
    using hosts = new LiveHosts("loopback");
    using manager = new Manager(hosts.folder);
    const [first, second, third, large, wide] = await Promise.all(
      ["one", "two", "three", "large", "wide"].map((name) =>
        LiveMachine.start(hosts, { name, memoryMib: name === "large" ? 128 : 32, pauseMs: 20 }),
      ),
    );
    await using stack = new AsyncDisposableStack();
    const machines = [first!, second!, third!, large!, wide!];
    for (const machine of machines) stack.use(machine);
    Object.assign(hosts.b.environment, {
      NOTIFY_SOCKET: manager.path,
      WATCHDOG_USEC: `${WATCHDOG_MICROSECONDS}`,
    });
    const noted = join(hosts.folder, "arrived");
    const limits = ["--at-once", "2", "--memory-max", "100M", "--disk-max", "8M"];
    const hook = ["--on-arrival", `echo "$VHU_NAME $VHU_ADDRESS $VHU_PID" >> ${noted}; [ $VHU_NAME = one ]`];
    const { receiver, target } = await hosts.b.receiveAs(["--insecure"], ...limits, ...hook);
    await using _ = receiver;
    await manager.hears(/^READY=1\nSTATUS=listening at 127.0.0.1:\d+; 0 arriving, 0 arrived$/);

    const slow = ["--bandwidth-max", "8M"];
    const sending = [first!, second!].map((machine) => send(hosts.a, machine, target, ...slow));
    await manager.hears(/^STATUS=.*; 2 arriving, 0 arrived$/);
    const refused = await send(hosts.a, third!, target);
    expect(refused.stderr).toContain("too many migrations arrive at once: 2 may");
    expect(refused.status).not.toBe(0);
    for (const { status, stderr } of await Promise.all(sending))
      expect([status, stderr]).toEqual([0, stderr]);
    for (const machine of [first!, second!]) {
      machine.host = hosts.b;
      expect((await machine.runners()).map(({ name }) => name)).toEqual(["b"]);
      expect(await machine.verify()).toMatchObject({ lost: 0, torn: 0, repeated: 0, failures: [] });
    }
    await manager.hears(/^STATUS=.*; 0 arriving, 2 arrived$/);

    truncateSync(join(hosts.folder, "wide.img"), 16 << 20);
    const tooLarge = await send(hosts.a, large!, target);
    expect(tooLarge.stderr).toContain("destination: memory");
    expect(tooLarge.status).toBe(4);
    const tooWide = await send(hosts.a, wide!, target);
    expect(tooWide.stderr).toContain("destination: disk");
    expect(tooWide.status).toBe(4);
    for (const machine of [third!, large!, wide!])
      expect((await machine.runners()).map(({ name }) => name)).toEqual(["a"]);

    await manager.hears(/^WATCHDOG=1$/);
    await waitUntil(() => readFileSync(noted, "utf8").split("\n").length === 3);
    const lines = readFileSync(noted, "utf8").trim().split("\n").sort();
    const pids = await Promise.all([first!, second!].map((machine) => machine.pidsOn(hosts.b)));
    expect(lines).toEqual(
      [first!, second!].map((machine, at) => `${machine.name} ${machine.address} ${pids[at]![0]}`),
    );
    // A hook that fails is said, and changes nothing; what arrived is no part of the service.
    expect(receiver.stderr()).toContain("the command for arrivals ended with 1");
    expect(readFileSync(`/proc/${pids[0]![0]}/environ`, "utf8")).not.toContain("NOTIFY_SOCKET");
    expect(await receiver.end("SIGTERM")).toBe(143);
    await manager.hears(/^STOPPING=1\n/);
    expect((await first!.runners()).map(({ name }) => name)).toEqual(["b"]);
  },
  TIMEOUT_MS,
);
