import { LiveHosts } from "./live-hosts.ts";
import { LiveMachine } from "./live-machine.ts";

const FILL_MIB = 24;

export interface NativeHopReport {
  readonly hops: number;
  /** As the sender reports them. */
  readonly downtimesMs: readonly number[];
}

/** Moves a native machine under load between two hosts, `hops` times. Throws where anything was lost, torn or repeated. */
export async function hopNative(hops: number): Promise<NativeHopReport> {
  using hosts = new LiveHosts();
  hosts.limit("1gbit");
  await using machine = await LiveMachine.start(hosts);
  const content = await machine.fill(FILL_MIB);
  const downtimesMs: number[] = [];
  for (let hop = 0; hop < hops; hop++) {
    const report = await hopOnce(hosts, machine);
    downtimesMs.push(report.downtimeMs as number);
    const { lost, torn, repeated } = await machine.verify();
    if (lost + torn + repeated > 0)
      throw new Error(`hop ${hop}: lost ${lost}, torn ${torn}, repeated ${repeated}`);
    if ((await machine.contentOf(FILL_MIB)) !== content) throw new Error(`hop ${hop}: the memory is another`);
  }
  return { hops, downtimesMs };
}

/** Moves the machine to the other host, and looks there. Returns the sender's report. */
export async function hopOnce(
  hosts: LiveHosts,
  machine: LiveMachine,
  ...options: string[]
): Promise<Record<string, unknown>> {
  const [from, to] = [machine.host, hosts.other(machine.host)];
  const { receiver, token, target } = await to.receive("--once");
  await using _ = receiver;
  const sequence = await machine.sequence();
  const sent = await from.run(
    "migrate",
    "send",
    "--json",
    "--token",
    token,
    ...options,
    machine.address,
    target,
  );
  if (sent.status !== 0 || sent.stderr !== "")
    throw new Error(`send ended with ${sent.status}: ${sent.stderr}`);
  await receiver.process.exited;
  if (receiver.process.exitCode !== 0) throw new Error(`receive failed: ${receiver.stderr()}`);
  machine.host = to;
  const runners = (await machine.runners()).map(({ name }) => name).join(" and ");
  if (runners !== to.name) throw new Error(`it runs at ${runners || "no host"}, not at ${to.name}`);
  await machine.reaches(sequence + 20);
  return JSON.parse(sent.stdout.trim().split("\n").at(-1)!);
}
