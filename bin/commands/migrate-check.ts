import type { Command } from "commander";
import { checkSend } from "../../migrate/live/mod.ts";
import { DiskCopies } from "../../migrate/mod.ts";
import { version } from "../../package.json" with { type: "json" };
import { parseAddressOf } from "../address.ts";
import { action, addCommand, type CommandContext } from "../command.ts";
import { DISKS_OPTION, diskCare } from "../disk-option.ts";
import { addSenderSecurity, type SenderSecurityOptions, senderSecurity } from "../live-options.ts";
import { openDriver } from "../open-driver.ts";
import { printable } from "../output/printable.ts";
import { expectationLines } from "../output/send-lines.ts";
import { formatTable } from "../output/table.ts";
import { spaceCheck } from "../space-check.ts";
import { wholeNumber } from "../whole-number.ts";

interface CheckOptions extends SenderSecurityOptions {
  readonly stop?: boolean;
  readonly disks?: string;
  readonly type?: string;
  readonly downtimeMax?: number;
  readonly copyStorage?: boolean;
}

const EXIT_FAILED = 4;

export function registerMigrateCheck(parent: Command): void {
  const command = addCommand(parent, {
    usage: "check <source> [target]",
    description: `look whether a machine can be saved or sent, and say what is in the way

SOURCE is qmp:PATH (a running QEMU), machine:PATH (a native machine) or unix:PATH (a vhost-user back-end). Nothing is touched.
With TARGET, a file, the place of the snapshot is looked at, too. With TARGET, tcp:HOST:PORT where vhu migrate receive listens, both sides are looked at, and how fast the way between
them is: what time and what downtime are to be expected of vhu migrate send.
Each line is one thing that was looked at: passed or FAILED, with what was found or what to do.`,
    examples: [
      ["vhu migrate check qmp:/run/web.qmp", "can this VM be saved while it goes on?"],
      ["vhu migrate check --disks include qmp:/run/web.qmp /srv/web.vhu", "with copies of its disks, there?"],
      ["vhu migrate check --token ABC… qmp:/run/web.qmp tcp:hostb:4950", "can it be sent there?"],
      ["vhu migrate check --stop qmp:/run/web.qmp", "and if it ends with the save?"],
    ],
    exitStatus: {
      4: "it cannot be saved or sent",
      5: "nobody is there, or another client holds the monitor",
    },
  });
  addSenderSecurity(command)
    .option("--downtime-max <ms>", "what vhu migrate send will be told", wholeNumber(1))
    .option("--stop", "look at a save after which the machine ends")
    .option("--disks <how>", DISKS_OPTION)
    .option("--copy-storage", "look at a send that copies the disks which the other host does not have")
    .option("--type <type>", "what kind of device a unix: back-end is")
    .action(
      action((context, source: string, target: string | undefined, options: CheckOptions) =>
        target?.startsWith("tcp:")
          ? checkTarget(context, source, target, options)
          : check(context, source, target, options),
      ),
    );
}

async function check(
  { output, signal }: CommandContext,
  sourceText: string,
  fileText: string | undefined,
  { stop, disks, type }: CheckOptions,
): Promise<number> {
  const source = parseAddressOf(sourceText, "source", ["qmp", "machine", "unix"]);
  const target = fileText === undefined ? undefined : parseAddressOf(fileText, "snapshot", ["file", "stdio"]);
  // Where nothing is said about the file, it will be one.
  using copies = target?.kind === "stdio" ? undefined : new DiskCopies(target?.path ?? "snapshot");
  using driver = await openDriver(source, { type, signal, disks: diskCare(stop, disks), copies });
  const { name, runState } = await driver.describe();
  const checks = [
    ...(await driver.preflight()),
    ...(target?.kind === "file" ? [await spaceCheck(driver, target.path)] : []),
  ];
  const ok = checks.every((each) => each.ok);
  if (output.json) {
    output.document({ name, runState, ok, checks });
  } else {
    const rows = checks.map((each) => [each.ok ? "passed" : "FAILED", each.name, printable(each.detail)]);
    output.lines(formatTable(rows));
    output.line(ok ? `${printable(name)} can be saved` : `${printable(name)} cannot be saved`);
  }
  return ok ? 0 : EXIT_FAILED;
}

async function checkTarget(
  { output, signal }: CommandContext,
  sourceText: string,
  targetText: string,
  options: CheckOptions,
): Promise<number> {
  const source = parseAddressOf(sourceText, "source", ["qmp", "machine"]);
  const { host, port } = parseAddressOf(targetText, "target", ["tcp"]);
  const security = senderSecurity(options);
  using driver = await openDriver(source, { signal, areDisksCared: true });
  const preflight = await checkSend(driver, {
    ...{ address: { host, port }, security, version, signal, streams: 1, retryMs: 0 },
    downtimeMaxMs: options.downtimeMax,
    copyStorage: options.copyStorage,
  });
  const { name, ok, checks } = preflight;
  if (output.json) output.document(preflight);
  else {
    output.lines(
      formatTable(
        checks.map((each) => [
          each.ok ? "passed" : "FAILED",
          each.side,
          printable(each.name),
          printable(each.detail),
        ]),
      ),
    );
    if (ok) output.lines(expectationLines(preflight));
    output.line(`${printable(name)} ${ok ? "can" : "cannot"} be sent there`);
  }
  return ok ? 0 : EXIT_FAILED;
}
