import { expect, test } from "bun:test";
import { createEventFd, drainEvent, EventLoop, POLL, signalEvent } from "../../src/sys/mod.ts";

test("a signal that comes while a handler runs is not lost", async () => {
  using loop = new EventLoop();
  using event = createEventFd("event");
  let signals = 0;
  const onSignal = () => {
    signals++;
    loop.stop();
  };
  process.on("SIGUSR2", onSignal);
  try {
    loop.watch(event, POLL.IN, () => {
      drainEvent(event);
      // Delivered before the next wait, which it therefore does not interrupt.
      process.kill(process.pid, "SIGUSR2");
    });
    signalEvent(event);
    await loop.run();
    expect(signals).toBe(1);
  } finally {
    process.off("SIGUSR2", onSignal);
  }
});
