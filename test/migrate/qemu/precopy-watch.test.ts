import { expect, test } from "bun:test";
import type { PassReport } from "../../../migrate/mod.ts";
import { PrecopyWatch } from "../../../migrate/qemu/precopy-watch.ts";
import { QmpClient } from "../../../migrate/qemu/qmp-client.ts";
import { GREETING, ScriptedMonitor } from "./scripted-monitor.ts";

const ram = (looks: number, transferred: number, remaining: number) => ({
  status: "active",
  "cpu-throttle-percentage": 20,
  ram: {
    transferred,
    remaining,
    "page-size": 4096,
    "dirty-sync-count": looks,
    "dirty-pages-rate": 100,
  },
});

/** A monitor that has greeted, and answers nothing yet. */
async function connected(monitor: ScriptedMonitor): Promise<QmpClient> {
  const connecting = QmpClient.connect(monitor.path);
  monitor.accept();
  monitor.say(GREETING);
  await Bun.sleep(50);
  monitor.say(`{"return": {}, "id": ${JSON.stringify(monitor.hear().id)}}\n`);
  return connecting;
}

test("each look at the dirty log but the first ends a pass", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const passes: Omit<PassReport, "milliseconds">[] = [];
  const watch = new PrecopyWatch(client, {
    onPass: ({ milliseconds: _, ...pass }) => passes.push(pass),
  });
  watch.look(ram(1, 0, 1000));
  watch.look(ram(1, 500, 500));
  watch.look(ram(2, 900, 300));
  watch.look(ram(2, 950, 250));
  watch.look({ status: "active" });
  watch.look(ram(4, 1300, 100));
  const known = { dirtyBytesPerSecond: 409_600, throttlePercent: 20 };
  expect(passes).toEqual([
    { passNumber: 0, sentBytes: 900, dirtyBytes: 300, ...known },
    { passNumber: 2, sentBytes: 400, dirtyBytes: 100, ...known },
  ]);
});

test("when the monitor is gone, the work beside it ends with that reason", async () => {
  using monitor = new ScriptedMonitor();
  using client = await connected(monitor);
  const watch = new PrecopyWatch(client, {});
  const work = (signal: AbortSignal) =>
    new Promise<void>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const result = watch.beside(work, undefined);
  monitor.hangUp();
  await expect(result).rejects.toThrow("QEMU closed its monitor");
});

test("work that is done is not held up by an answer that does not come", async () => {
  using monitor = new ScriptedMonitor();
  const client = await connected(monitor);
  const watch = new PrecopyWatch(client, {});
  expect(await watch.beside(async () => "done", undefined)).toBe("done");
  monitor.hangUp();
  await Bun.sleep(50);
  client[Symbol.dispose]();
});
