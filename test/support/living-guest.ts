import { existsSync } from "node:fs";
import { z } from "zod";
import { QmpClient } from "../../migrate/qemu/qmp-client.ts";
import { buildGuest, type Guest, type RunningQemu, startQemu } from "../peers/mod.ts";

/** A boot to init takes 2 s under TCG on an idle machine; a loaded one gets many times that. */
export const BOOT_TIMEOUT_MS = 120_000;
const POLL_MS = 10;

export interface LivingGuestOptions {
  readonly dir: string;
  readonly modules?: readonly string[];
  /** Lines of sh before the counter starts. */
  readonly before?: string;
  /** Lines of sh at each count; `$i` is the count. */
  readonly each?: string;
}

/** A guest whose nonce and counter are in its memory only: what it prints proves that it is the same life. */
export function livingGuest({ dir, modules = [], before = "", each = "" }: LivingGuestOptions): Guest {
  const init = `${before}
N=$(cat /proc/sys/kernel/random/uuid); i=0
while true; do
${each}
echo "ALIVE $N $i"; i=$((i+1)); sleep 0.1
done`;
  return buildGuest({ dir, modules, init });
}

export interface Beat {
  readonly nonce: string;
  readonly count: number;
}

export function beats(qemu: RunningQemu): Beat[] {
  return [...qemu.serial().matchAll(/ALIVE (\S+) (\d+)\n/g)].map(([, nonce, count]) => ({
    nonce: nonce!,
    count: Number(count),
  }));
}

/** Waits until the guest has printed `more` counts beyond what it has printed now (or ever, for a new QEMU). */
export async function waitForBeats(qemu: RunningQemu, more: number): Promise<Beat> {
  const wanted = beats(qemu).length + more;
  const deadline = performance.now() + BOOT_TIMEOUT_MS;
  while (beats(qemu).length < wanted) {
    if (performance.now() > deadline || qemu.process.exitCode !== null) {
      throw new Error(`the guest does not count: ${qemu.serial().slice(-500)}\n${qemu.stderr()}`);
    }
    await Bun.sleep(POLL_MS);
  }
  return beats(qemu).at(-1)!;
}

export async function startListening(options: Parameters<typeof startQemu>[0]): Promise<RunningQemu> {
  const qemu = startQemu(options);
  while (!existsSync(qemu.qmpPath)) {
    if (qemu.process.exitCode !== null) throw new Error(qemu.stderr());
    await Bun.sleep(POLL_MS);
  }
  return qemu;
}

/** One command on a monitor of its own. */
export async function qmp(
  qemu: Pick<RunningQemu, "qmpPath">,
  command: string,
  args: Record<string, unknown> = {},
) {
  using client = await QmpClient.connect(qemu.qmpPath);
  return await client.request(command, { answer: z.unknown(), arguments: args });
}

export async function runState(qemu: RunningQemu): Promise<string> {
  return z.object({ status: z.string() }).parse(await qmp(qemu, "query-status")).status;
}
