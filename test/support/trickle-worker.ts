import { writeSync } from "node:fs";

/** Writes pieces to an fd of the thread that started it, each after a pause and, where asked for, a signal to a process; says "ready" before the first. */
declare const self: Worker;

self.onmessage = (
  event: MessageEvent<{ fd: number; pieces: readonly Uint8Array[]; pauseMs: number; signalPid?: number }>,
) => {
  const { fd, pieces, pauseMs, signalPid } = event.data;
  self.postMessage("ready");
  for (const piece of pieces) {
    Bun.sleepSync(pauseMs);
    if (signalPid !== undefined) process.kill(signalPid, "SIGUSR2");
    try {
      writeSync(fd, piece);
    } catch {
      // The reader gave up, as it should.
      return;
    }
  }
};
