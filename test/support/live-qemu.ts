import { join } from "node:path";
import { peersFolder } from "../peers/peer.ts";
import { LiveGuest } from "./live-guest.ts";
import { type LiveHost, LiveHosts } from "./live-hosts.ts";
import { type LinkFaults, type LinkReport, LossyLink } from "./lossy-link.ts";
import { killQuietly } from "./started-machines.ts";

const COUNTS_PER_HOP = 6;

/** Moves over one kind of link: a veth limited to 1 Gbit/s, or two taps and a program between them that loses or delays frames. */
export interface LiveLeg {
  readonly hops: number;
  readonly faults?: LinkFaults | undefined;
}

export interface LiveLegReport {
  readonly link: string;
  readonly hops: number;
  /** As the sender reports them. */
  readonly downtimesMs: readonly number[];
  /** The longest time in which the other end of the guest's connection heard nothing of it, in each move. */
  readonly silencesMs: readonly number[];
  readonly totalsMs: readonly number[];
  /** What a link with faults has carried, and lost. */
  readonly frames?: LinkReport;
}

export interface LiveHopReport {
  readonly beats: number;
  readonly legs: readonly LiveLegReport[];
}

/**
 * A QEMU guest that moves between two hosts, at work all the time (`LiveGuest`): throws unless it is one life from the first to the
 * last, with nothing lost.
 */
export async function hopQemu(legs: readonly LiveLeg[]): Promise<LiveHopReport> {
  using hosts = new LiveHosts();
  hosts.limit("1gbit");
  const pids: number[] = [];
  await using guest = await LiveGuest.start(hosts);
  try {
    const place = { host: hosts.a, address: `qmp:${guest.qemu.qmpPath}` };
    const reports: LiveLegReport[] = [];
    for (const leg of legs) reports.push(await hopOver(guest, place, leg, pids));
    guest.requireAllWritten();
    return { beats: guest.requireOneLife().length, legs: reports };
  } catch (error) {
    throw new Error(`${guest.qemu.stderr()}\n${guest.qemu.serial().slice(-1000)}`, { cause: error });
  } finally {
    for (const pid of pids) killQuietly(pid);
  }
}

/** Where the guest is now. */
interface Place {
  host: LiveHost;
  address: string;
}

async function hopOver(
  guest: LiveGuest,
  place: Place,
  { hops, faults }: LiveLeg,
  pids: number[],
): Promise<LiveLegReport> {
  await using link = faults === undefined ? undefined : await LossyLink.start(guest.hosts, faults);
  const [downtimesMs, silencesMs, totalsMs]: number[][] = [[], [], []];
  for (let hop = 0; hop < hops; hop++) {
    const to = guest.hosts.other(place.host);
    const beganMs = Date.now();
    const moved = await move(place, to, link?.addresses[to.name] ?? to.address);
    pids.push(moved.pid);
    Object.assign(place, { host: to, address: moved.address });
    await guest.goesOn(COUNTS_PER_HOP);
    downtimesMs!.push(Math.round(moved.downtimeMs));
    totalsMs!.push(Math.round(moved.totalMs));
    silencesMs!.push(guest.longestSilenceMs(beganMs));
  }
  const name =
    faults === undefined
      ? "1 Gbit/s"
      : `${faults.lossPercent ?? 0}% loss, ${faults.delayMs ?? 0} ms each way`;
  const times = { downtimesMs: downtimesMs!, silencesMs: silencesMs!, totalsMs: totalsMs! };
  return { link: name, hops, ...times, ...(link === undefined ? {} : { frames: await link.end() }) };
}

async function move({ host, address }: Place, to: LiveHost, at: string) {
  const { receiver, token, target } = await to.receiveAt(
    at,
    "--once",
    "--root",
    join(peersFolder(), "guest"),
  );
  await using _ = receiver;
  const sent = await host.run("migrate", "send", "--json", "--token", token, address, target);
  if (sent.status !== 0 || sent.stderr !== "")
    throw new Error(`send ended with ${sent.status}: ${sent.stderr}`);
  await receiver.process.exited;
  if (receiver.process.exitCode !== 0) throw new Error(`receive failed: ${receiver.stderr()}`);
  const [, there] = /runs at (\S+);/.exec(receiver.stdout())!;
  const pid = Number(/process (\d+),/.exec(receiver.stdout())![1]);
  const report = JSON.parse(sent.stdout.trim().split("\n").at(-1)!) as {
    downtimeMs: number;
    totalMs: number;
  };
  return { address: there!, pid, ...report };
}
