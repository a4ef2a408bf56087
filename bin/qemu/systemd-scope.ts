import { existsSync } from "node:fs";
import { CompatibilityError } from "../../src/errors.ts";

/** sd_booted(3). */
const SYSTEMD_RUNS = "/run/systemd/system";

/**
 * Puts a command into a systemd scope of its own, so that it is listed, limited and ended as a unit. systemd-run becomes the
 * command: the pid stays. @throws CompatibilityError where systemd does not run
 */
export function inScope(command: readonly string[], unit: string): string[] {
  if (!existsSync(SYSTEMD_RUNS)) {
    throw new CompatibilityError(
      "--systemd: systemd does not run here (there is no /run/systemd/system): load without it",
    );
  }
  const isUser = process.getuid?.() !== 0;
  const name = `vhu-${unit.replace(/[^A-Za-z0-9:_.-]/g, "_").slice(0, 100)}-${process.pid}`;
  return [
    ...["systemd-run", "--scope", "--quiet", "--collect", ...(isUser ? ["--user"] : [])],
    ...["--unit", name, "--", ...command],
  ];
}
