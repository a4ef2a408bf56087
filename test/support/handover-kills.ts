import { join } from "node:path";
import { OperationsLog } from "../../migrate/mod.ts";
import { LiveHosts } from "./live-hosts.ts";
import { outcomeOf } from "./live-kills.ts";
import { LiveMachine } from "./live-machine.ts";

const WAIT_MS = 60_000;

/** Whose vhu is killed as soon as its log says so. */
export const handoverMoments = [
  ["sender", "sending"],
  ["sender", "releasing"],
  ["sender", "released"],
  ["sender", "moved"],
  ["receiver", "receiving"],
  ["receiver", "loaded"],
  ["receiver", "owner"],
  ["receiver", "running"],
] as const;
type HandoverMoment = (typeof handoverMoments)[number];

/**
 * SIGKILL of one vhu in the middle of the hand-over, with `both` of the other one, too: afterwards one host runs the machine, or
 * recovery on both leads there. Returns how it ended.
 */
export async function killAtHandover([side, state]: HandoverMoment, both = false): Promise<string> {
  using hosts = new LiveHosts();
  await using machine = await LiveMachine.start(hosts);
  const { receiver, token, target } = await hosts.b.receive("--once");
  await using _ = receiver;
  const words = ["migrate", "send", "--retry", "2", "--token", token, machine.address, target];
  await using sender = hosts.a.vhu(...words);
  const host = side === "sender" ? hosts.a : hosts.b;
  const [victim, other] = side === "sender" ? [sender, receiver] : [receiver, sender];
  const log = new OperationsLog(join(host.env.XDG_STATE_HOME!, "vhu", "operations"));
  const deadline = performance.now() + WAIT_MS;
  // A state that lasts shorter than a look at the log is found among those that were.
  const hasCome = () => {
    const [record] = log.list();
    return record?.facts.handover?.state === state || record?.phases.some(({ phase }) => phase === state);
  };
  while (!hasCome()) {
    if (performance.now() > deadline) throw new Error(`${side} never came to ${state}\n${sender.stderr()}`);
    await Bun.sleep(1);
  }
  victim.process.kill("SIGKILL");
  if (both) other.process.kill("SIGKILL");
  await Promise.race([Promise.all([sender.process.exited, receiver.process.exited]), Bun.sleep(WAIT_MS)]);
  return await outcomeOf(machine, hosts, side);
}
