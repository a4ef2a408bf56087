import { existsSync } from "node:fs";
import { O, openFile } from "../../src/sys/mod.ts";
import type { CommandContext } from "../command.ts";
import { type ConfinementNeeds, confine } from "./confine.ts";
import { endsOf } from "./console-ports.ts";
import { loggerOf } from "./device-logger.ts";
import { placeOf } from "./place.ts";
import type { RunBlkOptions } from "./run-blk.ts";
import type { RunConsoleOptions } from "./run-console.ts";
import type { RunOptions } from "./run-options.ts";

/**
 * Confines `vhu device run` to what its options name, unless --no-sandbox says otherwise. The process starts anew for that,
 * so this comes before anything costly or visible; it returns in the second start.
 *
 * @throws UsageError for a wrong command line, StateError
 */
export function confineDevice(context: CommandContext, options: RunOptions, own: ConfinementNeeds): void {
  if (options.printCapabilities || !options.sandbox) return;
  const place = placeOf(options);
  const { sockets = [] } = own;
  const needs = {
    ...own,
    sockets: [
      ...sockets,
      ...("socket" in place ? [place.socket] : []),
      ...(options.control === undefined ? [] : [options.control]),
    ],
    fds: ["fd" in place ? place.fd : undefined, options.controlFd].filter((fd) => fd !== undefined),
  };
  const { landlockAbi } = confine(needs);
  const logger = loggerOf(context, options);
  if (landlockAbi > 0) logger.debug("confined", { landlockAbi });
  else
    logger.warn(
      "this kernel has no landlock: the files that the device can open are not restricted (vhu doctor)",
    );
}

export function blkNeeds({ image, blkFile, readOnly }: RunBlkOptions): ConfinementNeeds {
  const paths = [image, blkFile].filter((path) => path !== undefined);
  return readOnly ? { readOnly: paths } : { readWrite: paths };
}

export function consoleNeeds(options: RunConsoleOptions): ConfinementNeeds {
  if (options.printCapabilities) return {};
  const needs = { readWrite: [] as string[], sockets: [] as string[], links: [] as string[] };
  for (const end of endsOf(options)) {
    if (end.kind === "socket") needs.sockets.push(end.path);
    // Which terminal of /dev/pts it will be is known only when it is made.
    if (end.kind === "pty") needs.readWrite.push("/dev/ptmx", "/dev/pts");
    if (end.kind === "pty" && end.link !== undefined) needs.links.push(end.link);
    if (end.kind !== "file") continue;
    // Made here where it is missing, so that one file need be allowed and not its folder.
    if (!existsSync(end.path)) openFile(end.path, O.WRONLY | O.CREAT)[Symbol.dispose]();
    needs.readWrite.push(end.path);
  }
  return needs;
}
