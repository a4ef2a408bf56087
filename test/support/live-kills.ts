import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { randomNumbers } from "../fuzz/mutate.ts";
import type { LiveHost } from "./live-hosts.ts";
import { LiveHosts } from "./live-hosts.ts";
import { LiveMachine } from "./live-machine.ts";

/** What is ended, or cut, at a random moment of a migration. */
const VICTIMS = ["sender", "receiver", "source machine", "destination machine", "cable"] as const;
const FILL_MIB = 24;
/** A migration of these machines takes about as long. */
const MAX_DELAY_MS = 1_500;
const SETTLE_MS = 60_000;

export interface LiveKillReport {
  /** How it ended, by victim. */
  readonly outcomes: Readonly<Record<string, number>>;
}

/**
 * Migrations of a native machine of which one part is killed or cut at a random moment: afterwards exactly one host runs it,
 * or recovery on both leads there; never two. What it has written is all there.
 */
export async function killMigrations(seed: number, count: number): Promise<LiveKillReport> {
  const random = randomNumbers(seed);
  const outcomes: Record<string, number> = {};
  for (let index = 0; index < count; index++) {
    const victim = VICTIMS[random(VICTIMS.length)]!;
    // Every other time in the hand-over, which is too short for a random moment to hit.
    const delayMs = index % 2 === 0 ? random(MAX_DELAY_MS) : undefined;
    try {
      const outcome = await killOnce(victim, delayMs);
      outcomes[`${victim}: ${outcome}`] = (outcomes[`${victim}: ${outcome}`] ?? 0) + 1;
    } catch (cause) {
      throw new Error(
        `seed ${seed}, migration ${index}, ${victim} ${delayMs === undefined ? "when it is loaded" : `after ${delayMs} ms`}`,
        { cause },
      );
    }
  }
  return { outcomes };
}

/** @param delayMs undefined: when the destination's log says that all is there and loaded */
async function killOnce(victim: (typeof VICTIMS)[number], delayMs: number | undefined): Promise<string> {
  using hosts = new LiveHosts();
  hosts.limit("1gbit");
  await using machine = await LiveMachine.start(hosts);
  await machine.fill(FILL_MIB);
  const { receiver, token, target } = await hosts.b.receive("--once");
  await using _ = receiver;
  await using sender = hosts.a.vhu(
    "migrate",
    "send",
    "--retry",
    "2",
    "--token",
    token,
    machine.address,
    target,
  );
  await receiver.waitForStderr(/a migration begins/, SETTLE_MS);
  if (delayMs === undefined) await untilLoaded(hosts.b);
  else await Bun.sleep(delayMs);
  if (victim === "cable") {
    hosts.isCut = true;
    await Bun.sleep((delayMs ?? 1) % 2 === 0 ? 500 : 15_000);
    hosts.isCut = false;
  } else if (victim === "sender") sender.process.kill("SIGKILL");
  else if (victim === "receiver") receiver.process.kill("SIGKILL");
  else {
    const [pid] = await machine.pidsOn(victim === "source machine" ? hosts.a : hosts.b);
    if (pid !== undefined) process.kill(pid, "SIGKILL");
  }
  await Promise.race([Promise.all([sender.process.exited, receiver.process.exited]), Bun.sleep(SETTLE_MS)]);
  return await outcomeOf(machine, hosts, victim);
}

async function untilLoaded(host: LiveHost): Promise<void> {
  const folder = join(host.env.XDG_STATE_HOME!, "vhu", "operations");
  const deadline = performance.now() + SETTLE_MS;
  while (performance.now() < deadline) {
    const logs = existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith("receive-")) : [];
    if (logs.some((name) => readFileSync(join(folder, name), "utf8").includes('"state":"loaded"'))) return;
    await Bun.sleep(1);
  }
  throw new Error("the machine was never loaded");
}

/** Looks who runs it; where nobody does, recovery must lead to one. */
export async function outcomeOf(machine: LiveMachine, hosts: LiveHosts, victim: string): Promise<string> {
  const runners = await machine.runners();
  if (runners.length > 1) throw new Error("both hosts run it");
  if (runners.length === 1) return await check(machine, runners[0]!, "runs");
  await recover(hosts);
  const recovered = await machine.runners();
  if (recovered.length > 1) throw new Error("both hosts run it after recovery");
  if (recovered.length === 1) return await check(machine, recovered[0]!, "recovered");
  // A machine whose only process was killed is gone, whoever migrates it.
  if (victim.endsWith("machine")) return "lost with its process";
  throw new Error(`nobody runs it: ${await statusOf(hosts.a)} ${await statusOf(hosts.b)}`);
}

async function check(machine: LiveMachine, host: LiveHost, how: string): Promise<string> {
  machine.host = host;
  await machine.reaches((await machine.sequence()) + 10);
  const { lost, torn, repeated } = await machine.verify();
  if (lost + torn + repeated > 0) throw new Error(`lost ${lost}, torn ${torn}, repeated ${repeated}`);
  return `${how} at ${host.name}`;
}

/** As a user does it: each side's state is told to the other. */
async function recover(hosts: LiveHosts): Promise<void> {
  for (const host of [hosts.b, hosts.a, hosts.b]) {
    const [own, other] = [await openMove(host), await openMove(hosts.other(host))];
    if (own === undefined) continue;
    const word = other?.state ?? (await lastWord(hosts.other(host)));
    const told = word === undefined ? [] : ["--other", word];
    const { status, stderr } = await host.run("migrate", "recover", own.id, ...told);
    if (status !== 0) console.error(`recover on ${host.name}: ${stderr}`);
  }
}

interface OpenMove {
  readonly id: string;
  readonly state: string;
}

/** The interrupted move of a host, and the first word of its line. */
async function openMove(host: LiveHost): Promise<OpenMove | undefined> {
  const text = await statusOf(host);
  const match =
    /\b((?:send|receive)-[0-9a-f]{8})\b[\s\S]*?\b(sending|releasing|released|moved|kept|receiving|loaded|owner|running|abandoned|lost): /.exec(
      text,
    );
  return match === null ? undefined : { id: match[1]!, state: match[2]! };
}

async function statusOf(host: LiveHost): Promise<string> {
  const { stdout, stderr } = await host.run("migrate", "status");
  return `${stdout}${stderr}`;
}

/** Of a move that has ended: what its log says last. */
async function lastWord(host: LiveHost): Promise<string | undefined> {
  const { stdout } = await host.run("migrate", "list", "--json");
  const states = [...stdout.matchAll(/"phase":\s*"(\w+)"/g)].map(([, phase]) => phase!);
  return states[0] === "begun" ? undefined : states[0];
}
