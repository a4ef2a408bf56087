import type { Command } from "commander";
import type { PrecopyOptions } from "../migrate/mod.ts";
import { UsageError } from "../src/errors.ts";

export interface ThrottleOptions {
  readonly throttle?: boolean;
  readonly autoConverge?: boolean;
  readonly dirtyLimit?: boolean;
}

/** What is done about a machine that changes its memory faster than it can be copied. */
export function addThrottleOptions(command: Command): Command {
  return command
    .option(
      "--auto-converge",
      "slow the machine down, more and more, where it changes its memory faster than that is copied",
    )
    .option("--throttle", "the same")
    .option(
      "--dirty-limit",
      "hold up each CPU of a QEMU machine by what it writes; needs KVM with a dirty ring",
    );
}

/** @throws UsageError for both ways at once */
export function throttleOf({
  throttle,
  autoConverge,
  dirtyLimit,
}: ThrottleOptions): PrecopyOptions["throttle"] {
  const isSlowed = (throttle ?? false) || (autoConverge ?? false);
  if (isSlowed && dirtyLimit) throw new UsageError("--auto-converge and --dirty-limit exclude each other");
  return dirtyLimit ? "dirty-limit" : isSlowed;
}
