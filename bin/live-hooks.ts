import type { ReceiveReport } from "../migrate/live/mod.ts";
import type { Logger } from "../src/logger.ts";

/** Runs the user's own command for a machine that has arrived; that it fails changes nothing for the machine. */
export async function runHook(
  command: string,
  { name, address, pid }: ReceiveReport,
  logger: Logger,
): Promise<void> {
  const child = Bun.spawn(["sh", "-c", command], {
    env: { ...process.env, VHU_NAME: name, VHU_ADDRESS: address, VHU_PID: String(pid) },
    stdio: ["ignore", "inherit", "inherit"],
  });
  const status = await child.exited;
  if (status !== 0)
    logger.warn(`the command for arrivals ended with ${child.signalCode ?? status}: ${command}`);
}
