import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { libblkioCompileFlags, requirePeers } from "../peers/mod.ts";
import { startPeerBackend } from "../support/peer-backend.ts";
import type { Bench, BenchContext, Contender, Contest } from "./support/bench.ts";
import { output, program } from "./support/processes.ts";

const MiB = 1 << 20;
const IMAGE_BYTES = 512 * MiB;
const SECONDS = 1;
const WARM_UP_SECONDS = 0.5;
const TICKS_PER_SECOND = 100;

/** The daemon that users run, with all that it does by default. */
const VHU = [
  process.execPath,
  join(import.meta.dir, "../../bin/vhu.ts"),
  ...["device", "run", "blk", "--num-queues", "2", "--socket"],
];

interface Case {
  readonly what: string;
  /** undefined: nothing is read or written. */
  readonly image: string | undefined;
  readonly load: readonly string[];
  readonly atLeast: number;
  readonly isDirect?: boolean;
  /** The tail and the CPU time are goals of their own. */
  readonly isWhole?: boolean;
}

interface Placement {
  readonly where: string;
  readonly server: number;
  readonly client: number;
}

interface LoadReport {
  readonly requests: number;
  readonly iops: number;
  readonly p50Us: number;
  readonly p99Us: number;
}

/** Our ring Workers against qemu-storage-daemon, with libblkio as the client of both. */
export const blk: Bench = {
  name: "blk",
  meaning: "a block device in a ring Worker, against qemu-storage-daemon",
  memoryBytes: IMAGE_BYTES * 2,
  async prepare(context) {
    const peers = requirePeers(["qemu-storage-daemon", "libblkio"]);
    if (peers === undefined) return [];
    const client = compileLoad(context.folder);
    const image = await makeImage(context.folder);
    const commands = {
      qsd: peers["qemu-storage-daemon"].command,
      client: [...peers.libblkio.command, client],
    };
    return placements().flatMap((placement) =>
      casesOf(image).map((one) => contestOf(context, commands, one, placement)),
    );
  },
};

interface Commands {
  readonly qsd: readonly string[];
  readonly client: readonly string[];
}

function casesOf(image: string): Case[] {
  const cached = (what: string, load: readonly string[], atLeast: number): Case => ({
    what: `${what}, page cache`,
    image,
    load,
    atLeast,
  });
  return [
    { what: "null device, depth 64", image: undefined, load: ["qd=64"], atLeast: 0.6 },
    ...["read", "write"].flatMap((way) =>
      [1, 2].flatMap((queues) =>
        [1, 32, 64].map((depth) => {
          const load = [`qd=${depth}`, `queues=${queues}`, `rw=rand${way}`];
          const what = `4 KiB random ${way}, depth ${depth}, ${queues === 1 ? "1 queue" : `${queues} queues`}`;
          return { ...cached(what, load, 1.2), isWhole: depth === 32 };
        }),
      ),
    ),
    cached("128 KiB sequential read, depth 8", ["qd=8", "bs=131072", "rw=read"], 1),
    cached("128 KiB sequential write, depth 8", ["qd=8", "bs=131072", "rw=write"], 1),
    { what: "4 KiB random read, depth 32, O_DIRECT", image, load: ["qd=32"], atLeast: 1, isDirect: true },
  ];
}

function placements(): Placement[] {
  const same = { where: "same core", server: 0, client: 0 };
  return cpus().length < 2 ? [same] : [{ where: "two cores", server: 0, client: 1 }, same];
}

function contestOf(context: BenchContext, commands: Commands, one: Case, placement: Placement): Contest {
  const contender = (name: string, server: (socket: string) => readonly string[]): Contender => ({
    name,
    run: () => measure(context, server, [...commands.client], one.load, placement),
  });
  const daemon = (options: string) => (socket: string) => [
    ...commands.qsd,
    ...["--blockdev", `node-name=d0,${options}`, "--object", "iothread,id=t0", "--export"],
    `type=vhost-user-blk,id=e0,node-name=d0,addr.type=unix,addr.path=${socket},writable=on,num-queues=2,iothread=t0`,
  ];
  const { image, isDirect = false } = one;
  const direct = isDirect ? ["--direct"] : [];
  const file = `driver=file,filename=${image},locking=off,cache.direct=${isDirect ? "on" : "off"}`;
  const others =
    image === undefined
      ? [contender("qsd, null-co", daemon(`driver=null-co,size=${IMAGE_BYTES},read-zeroes=off`))]
      : ["io_uring", "threads"].map((aio) => contender(`qsd, ${aio}`, daemon(`${file},aio=${aio}`)));
  const ours =
    image === undefined
      ? [contender("vhu", (socket) => [...program("blk-backend"), socket, "null"])]
      : [contender("vhu", (socket) => [...VHU, socket, "--image", image, ...direct])];
  const over = others.map(({ name }) => name);
  const goals = (limit: { atLeast: number } | { atMost: number }) =>
    ours.slice(0, 1).map(({ name: of }) => ({ of, over, ...limit }));
  return {
    title: `${one.what}, ${placement.where}`,
    unit: "kIOPS",
    contenders: [...others, ...ours],
    goals: goals({ atLeast: one.atLeast }),
    also: [
      { unit: "p50 us", goals: [] },
      { unit: "p99 us", goals: one.isWhole ? goals({ atMost: 1 }) : [] },
      { unit: "server CPU s per 10^6", goals: one.isWhole ? goals({ atMost: 1 }) : [] },
    ],
  };
}

/** Starts the server, loads it, and returns kIOPS, p50, p99, and the server's CPU time. */
async function measure(
  context: BenchContext,
  server: (socket: string) => readonly string[],
  client: string[],
  load: readonly string[],
  placement: Placement,
): Promise<number[]> {
  const dir = mkdtempSync(join(context.folder, "blk-"));
  const command = (socket: string) => ["taskset", "-c", `${placement.server}`, ...server(socket)];
  try {
    await using backend = startPeerBackend({ dir, name: "server", command });
    await backend.listening();
    const before = cpuSeconds(backend.process.pid);
    const times = [`seconds=${SECONDS}`, `warmup=${WARM_UP_SECONDS}`];
    const words = [...client, backend.socketPath, ...load, ...times];
    const report = JSON.parse(await output({ words, cpu: placement.client })) as LoadReport;
    const cpu = cpuSeconds(backend.process.pid) - before;
    // The CPU time of the warm-up is in it, and so are its requests.
    const requests = (report.requests * (SECONDS + WARM_UP_SECONDS)) / SECONDS;
    return [report.iops / 1000, report.p50Us, report.p99Us, (cpu / requests) * 1e6];
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** User and system time of a process, all threads. */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function compileLoad(folder: string): string {
  const target = join(folder, "blkio-load");
  const source = join(import.meta.dir, "c/blkio-load.c");
  const { exitCode, stderr } = Bun.spawnSync(["gcc", "-O2", source, "-o", target, ...libblkioCompileFlags()]);
  if (exitCode !== 0) throw new Error(`${source} does not compile: ${stderr.toString()}`);
  return target;
}

/** Random bytes, so that nothing along the way can be clever; read once, so that the page cache has them. */
async function makeImage(folder: string): Promise<string> {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, "disk.raw");
  const writer = Bun.file(path).writer();
  for (let i = 0; i < IMAGE_BYTES / MiB; i++) {
    const chunk = new Uint8Array(MiB);
    for (let at = 0; at < MiB; at += 65536) crypto.getRandomValues(chunk.subarray(at, at + 65536));
    writer.write(chunk);
    await writer.flush();
  }
  await writer.end();
  return path;
}
