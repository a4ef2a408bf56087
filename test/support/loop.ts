import { Deadline, type EventLoop, eventLoopTurn } from "../../src/sys/mod.ts";

/** Runs a loop beside the test's own promises: both ends of a pair live in one thread then. Dispose of it to stop. */
export function runBeside(loop: EventLoop): Disposable {
  let running = true;
  void (async () => {
    while (running) {
      loop.runOnce(0);
      await eventLoopTurn();
    }
  })();
  return {
    [Symbol.dispose]() {
      running = false;
    },
  };
}

/** Waits until something is so, while promises and what runs beside them go on. */
export async function until(condition: () => boolean, timeoutMs = 10_000): Promise<void> {
  const deadline = new Deadline(timeoutMs);
  while (!condition()) {
    if (deadline.expired) throw new Error(`not within ${timeoutMs} ms: ${condition}`);
    await eventLoopTurn();
  }
}
