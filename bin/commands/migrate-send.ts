import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError } from "commander";
import {
  type CompressSetting,
  type Preflight,
  type SendOptions as SendMachineOptions,
  type SendReport,
  sendMachine,
} from "../../migrate/live/mod.ts";
import { Operation, OperationsLog, type VmDriver } from "../../migrate/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { MAX_LIVE_RETRY_MS, MAX_LIVE_STREAMS } from "../../src/limits.ts";
import { identityOf } from "../../src/sys/mod.ts";
import { type Address, parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { addSenderSecurity, byteCount, type SenderSecurityOptions, senderSecurity } from "../live-options.ts";
import { openDriver } from "../open-driver.ts";
import { formatBytes, formatCount, formatDuration } from "../output/format.ts";
import { expectationLines, passLine, sendNote } from "../output/send-lines.ts";
import { addThrottleOptions, type ThrottleOptions, throttleOf } from "../throttle-options.ts";
import { wholeNumber } from "../whole-number.ts";
import { absoluteAddress } from "../with-operation.ts";

interface SendOptions extends SenderSecurityOptions, ThrottleOptions {
  readonly parallel: number;
  readonly retry: number;
  readonly compress: CompressSetting;
  readonly bandwidthMax?: number;
  readonly downtimeMax?: number;
  readonly copyStorage?: boolean;
}

/** Each has a thread that packs, and so has the other side's machine. Equal pages are found within one only. */
const DEFAULT_STREAMS = Math.min(Math.max(Math.floor(availableParallelism() / 2), 1), 4);
const DEFAULT_RETRY_S = 30;

export function registerMigrateSend(parent: Command): void {
  const command = addCommand(parent, {
    usage: "send <source> <target>",
    description: `move a running machine to another host

SOURCE is qmp:PATH (a running QEMU) or machine:PATH (a native machine); TARGET is tcp:HOST:PORT, where vhu migrate receive
listens. Both sides look first whether it can work, and nothing moves if not. The machine runs here until the other side has
loaded and checked all of it; if anything fails before, it goes on here. Then it is given up here, and only then runs there.
A connection that breaks is taken up again. Ctrl-C cancels, and the machine goes on here.

A machine that changes its memory faster than it can be copied ends the command, and runs on: --auto-converge slows it down.

Disks must be on storage that both hosts have. With --copy-storage, those that the other side does not have are copied while
the machine runs: it makes files of the same path below its --root, never over one that is there.`,
    examples: [
      [
        "vhu migrate send --token ABC… machine:/run/web.sock tcp:hostb:4950",
        "with the token that hostb has printed",
      ],
      [
        "vhu migrate send --tls-cert a.pem --tls-key a.key --tls-ca ca.pem qmp:/run/web.qmp tcp:hostb:4950",
        "with certificates",
      ],
      [
        "vhu migrate send --copy-storage --token ABC… machine:/run/web.sock tcp:hostb:4950",
        "with its disks, where the hosts have no storage together",
      ],
      ["vhu migrate send --insecure machine:/run/web.sock tcp:127.0.0.1:4950", "on one host"],
    ],
    exitStatus: {
      4: "a side found something in the way, the receiver is not the right one, or the machine changes its memory faster than it can be copied (NOT_CONVERGING): it goes on here",
      5: "the connection, the machine or a back-end was lost: the message says where the machine is",
    },
  });
  addThrottleOptions(addSenderSecurity(command))
    .option("--parallel <count>", "connections for the memory", streamCount, DEFAULT_STREAMS)
    .option("--compress <how>", "auto, none, or a level of zstd from -7 to 19", compressSetting, "auto")
    .option("--bandwidth-max <bytes>", "at most so many bytes in a second, e.g. 100M", byteCount)
    .option("--downtime-max <ms>", "stop the machine once the rest takes no longer than this", wholeNumber(1))
    .option("--copy-storage", "copy the disks that the other host does not have")
    .option("--retry <seconds>", "how long a broken connection may be missing", retrySeconds, DEFAULT_RETRY_S)
    .action(
      action((context, source: string, target: string, options: SendOptions) =>
        send(context, source, target, options),
      ),
    );
}

async function send(
  context: CommandContext,
  sourceText: string,
  targetText: string,
  options: SendOptions,
): Promise<undefined> {
  const source = parseAddressOf(sourceText, "source", ["qmp", "machine"]);
  const { host, port } = parseAddressOf(targetText, "target", ["tcp"]);
  const security = senderSecurity(options);
  const { output, signal } = context;
  using driver = await openDriver(source, { signal, areDisksCared: true });
  using progress = output.progress("send");
  using operation = await beginSend(driver, source, { kind: "tcp", host, port });
  const sendOptions: SendMachineOptions = {
    ...{ address: { host, port }, security, version, signal },
    ...{ streams: options.parallel, retryMs: options.retry * 1000, compress: options.compress },
    ...{
      bandwidthMaxBytes: options.bandwidthMax,
      downtimeMaxMs: options.downtimeMax,
      throttle: throttleOf(options),
      copyStorage: options.copyStorage,
    },
    operation,
    onLine: (line) => output.log.error(line),
    onConnection: (what) => output.log.warn(what),
    onPreflight: (preflight) => sayPreflight(context, preflight),
    onProgress: ({ doneBytes, totalBytes, ...details }) =>
      progress.update({
        doneBytes,
        totalBytes,
        note: sendNote({ doneBytes, totalBytes, ...details }),
        details,
      }),
    onPass: (pass) => output.status(passLine(pass), { pass }),
  };
  report(context, await sendMachine(driver, sendOptions));
  return undefined;
}

async function beginSend(driver: VmDriver, source: Address, target: Address): Promise<Operation> {
  const { name, runState, pid } = await driver.describe();
  const vmProcess = pid === undefined ? undefined : identityOf(pid);
  return Operation.begin(new OperationsLog(), {
    ...{ kind: "send", source: absoluteAddress(source), target: absoluteAddress(target) },
    facts: { machine: name, earlierRunState: runState, vmProcess, handover: { state: "sending" } },
  });
}

function sayPreflight({ output }: CommandContext, preflight: Preflight): void {
  const { name, memoryBytes, copies, ok } = preflight;
  if (!ok) return;
  const [first, ...rest] = expectationLines(preflight);
  const diskBytes = copies.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  const disks =
    copies.length === 0 ? "" : `, ${formatBytes(diskBytes)} of ${formatCount(copies.length, "disk")}`;
  output.status(`${name}: ${formatBytes(memoryBytes)} of memory${disks}; ${first}`, { preflight });
  if (!output.json) for (const line of rest) output.status(line);
}

function report({ output }: CommandContext, sent: SendReport): void {
  output.summary({ ...sent }, () => [
    `${sent.name} runs at ${sent.target} on the other host; it was sent in ${formatDuration(sent.totalMs)}`,
    `  memory ${formatBytes(sent.memoryBytes)}, sent as ${formatBytes(sent.packedBytes)} (${formatRatio(sent)}) in ${passesOf(sent)}; ${formatBytes(sent.wireBytes)} on the wire`,
    ...sent.disks.map(
      ({ path, givenBytes, packedBytes }) =>
        `  disk ${path}: ${formatBytes(givenBytes)} read, sent as ${formatBytes(packedBytes)}; the file here stays as it was when the machine went`,
    ),
    `  it stood still for about ${formatDuration(sent.downtimeMs)} (the other side: ${formatDuration(sent.loadMs)} to load, ${formatDuration(sent.resumeMs)} to go on)`,
    ...(sent.reconnections > 0
      ? [`  ${formatCount(sent.reconnections, "broken connection")} taken up again`]
      : []),
  ]);
}

function formatRatio({ givenBytes, packedBytes }: SendReport): string {
  return packedBytes === 0 ? "nothing" : `1 : ${(givenBytes / packedBytes).toFixed(1)}`;
}

/** Those while it ran; one that was too short to be seen is in the next one's report. */
function passesOf({ passes }: SendReport): string {
  return formatCount((passes.at(-1)?.passNumber ?? 0) + 1, "pass", "passes");
}

function streamCount(text: string): number {
  const count = wholeNumber(1)(text);
  if (count <= MAX_LIVE_STREAMS) return count;
  throw new InvalidArgumentError(`At most ${MAX_LIVE_STREAMS} connections.`);
}

function retrySeconds(text: string): number {
  const seconds = wholeNumber(0)(text);
  if (seconds * 1000 <= MAX_LIVE_RETRY_MS) return seconds;
  throw new InvalidArgumentError(`At most ${MAX_LIVE_RETRY_MS / 1000} seconds.`);
}

const [LEAST_LEVEL, MOST_LEVEL] = [-7, 19];

function compressSetting(text: string): CompressSetting {
  if (text === "auto" || text === "none") return text;
  const level = Number(text);
  if (/^-?\d+$/.test(text) && level >= LEAST_LEVEL && level <= MOST_LEVEL) return level;
  throw new InvalidArgumentError(`Expected auto, none or a level from ${LEAST_LEVEL} to ${MOST_LEVEL}.`);
}
