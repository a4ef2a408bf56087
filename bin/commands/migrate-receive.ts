import { tmpdir } from "node:os";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { type ArrivalPolicy, type ReceiveReport, runReceiver } from "../../migrate/live/mod.ts";
import { OperationsLog } from "../../migrate/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { UsageError } from "../../src/errors.ts";
import { MAX_LIVE_SESSIONS } from "../../src/limits.ts";
import { parseAddressOf } from "../address.ts";
import { collect } from "../collect.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { runHook } from "../live-hooks.ts";
import {
  addCertificateOptions,
  byteCount,
  type CertificateOptions,
  certificatesOf,
} from "../live-options.ts";
import { formatBytes, formatDuration } from "../output/format.ts";
import { ServiceManager } from "../service-manager.ts";
import { vhuCommand } from "../vhu-command.ts";
import { wholeNumber } from "../whole-number.ts";

interface ReceiveOptions extends CertificateOptions {
  readonly once?: boolean;
  readonly root?: readonly string[];
  readonly allow?: readonly string[];
  readonly memoryMax?: number;
  readonly diskMax?: number;
  readonly sockets?: string;
  readonly qemu?: string;
  readonly onArrival?: string;
  readonly atOnce?: number;
}

export function registerMigrateReceive(parent: Command): void {
  const command = addCommand(parent, {
    usage: "receive <address>",
    description: `take machines that other hosts send

ADDRESS is tcp:ADDR:PORT, e.g. tcp:0.0.0.0:4950. Without certificates it prints a pairing token, good for one migration and
ten minutes, which the sender is given. What arrives never names a program to run: native machines are run by this vhu, QEMU
is the installed one with arguments from an allow-list, and files and sockets must lie below --root. A machine runs here only
once all of it was checked and the sender has given it up.`,
    examples: [
      ["vhu migrate receive --once --root /srv/vm tcp:0.0.0.0:4950", "take one machine, with a token"],
      [
        "vhu migrate receive --tls-cert b.pem --tls-key b.key --tls-ca ca.pem --root /srv/vm tcp:0.0.0.0:4950",
        "as a service, for whoever has a certificate of that authority",
      ],
      [
        "vhu migrate receive --root /srv/vm --on-arrival 'logger arrived $VHU_NAME' tcp:0.0.0.0:4950",
        "and tell",
      ],
    ],
    exitStatus: { 4: "with --once: it does not fit here", 5: "with --once: the sender was lost" },
  });
  addCertificateOptions(command)
    .option("--once", "end after the first machine")
    .option("--root <folder>", "where a machine's files and sockets may lie; may be repeated", collect)
    .option("--allow <type>", "machine or qemu: what may arrive; may be repeated; default both", collect)
    .option("--memory-max <bytes>", "the most memory that a machine may have, e.g. 4G", byteCount)
    .option("--disk-max <bytes>", "the largest disk that a machine may have, e.g. 100G", byteCount)
    .option(
      "--at-once <count>",
      `so many machines may arrive at a time; default ${MAX_LIVE_SESSIONS}`,
      atOnce,
    )
    .option("--sockets <folder>", "where control sockets and monitors go, as NAME.sock")
    .option("--qemu <program>", "the QEMU to start, instead of the installed one of the recorded name")
    .option("--on-arrival <command>", "run by sh when a machine runs here, with $VHU_NAME and $VHU_ADDRESS")
    .action(
      action((context, address: string, options: ReceiveOptions) => receive(context, address, options)),
    );
}

async function receive(
  context: CommandContext,
  addressText: string,
  options: ReceiveOptions,
): Promise<undefined> {
  const { host, port } = parseAddressOf(addressText, "address", ["tcp"]);
  const certificates = certificatesOf(options);
  if (certificates !== undefined && options.insecure)
    throw new UsageError("--insecure and certificates exclude each other");
  const { output, signal } = context;
  using manager = ServiceManager.ofProcess(output.log);
  signal.addEventListener("abort", () => manager.stopping(), { once: true });
  let place = "";
  let counts = { arriving: 0, arrived: 0 };
  const tell = () => manager.status(`${place}; ${counts.arriving} arriving, ${counts.arrived} arrived`);
  await runReceiver({
    ...{
      address: { host, port },
      version,
      logger: output.log,
      log: new OperationsLog(),
      once: options.once ?? false,
      atOnce: options.atOnce,
      signal,
    },
    security:
      certificates === undefined
        ? { kind: options.insecure ? "insecure" : "token" }
        : { kind: "certificates", certificates },
    policy: policyOf(options),
    onReady: ({ port: actual, token, why }) => {
      if (why !== undefined) output.log.warn(why);
      output.status(`listening at ${host}:${actual}`, { port: actual });
      if (token !== undefined) output.status(`token: ${token}`, { token });
      place = `listening at ${host}:${actual}`;
      tell();
    },
    onCount: (now) => {
      counts = now;
      tell();
    },
    onArrival: async (report) => {
      say(context, report);
      if (options.onArrival !== undefined) await runHook(options.onArrival, report, output.log);
    },
    onFailure: (error) => output.log.error(`a migration failed: ${error.message}`),
  });
  return undefined;
}

function atOnce(text: string): number {
  const count = wholeNumber(1)(text);
  if (count <= MAX_LIVE_SESSIONS) return count;
  throw new InvalidArgumentError(`At most ${MAX_LIVE_SESSIONS} machines.`);
}

function policyOf({ root, allow, memoryMax, diskMax, sockets, qemu }: ReceiveOptions): ArrivalPolicy {
  for (const type of allow ?? []) {
    if (type !== "machine" && type !== "qemu")
      throw new UsageError(`--allow is machine or qemu, not "${type}"`);
  }
  return {
    allow: (allow as ArrivalPolicy["allow"] | undefined) ?? ["machine", "qemu"],
    roots: (root ?? []).map((folder) => resolve(folder)),
    ...{ memoryMaxBytes: memoryMax, diskMaxBytes: diskMax, qemu, vhu: vhuCommand },
    socketFolder: resolve(sockets ?? `${process.env.XDG_RUNTIME_DIR ?? tmpdir()}/vhu-arrived`),
  };
}

function say({ output }: CommandContext, report: ReceiveReport): void {
  output.summary({ ...report }, () => [
    `${report.name} runs at ${report.address}; it arrived in ${formatDuration(report.totalMs)}`,
    `  memory ${formatBytes(report.memoryBytes)}, of which ${formatBytes(report.receivedBytes)} came (${formatBytes(report.wireBytes)} on the wire); ${formatDuration(report.loadMs)} to load, ${formatDuration(report.resumeMs)} to go on`,
    `  process ${report.pid}, log ${report.logPath}`,
  ]);
}
