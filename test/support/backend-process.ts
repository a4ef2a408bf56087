/**
 * A back-end in a process of its own: `bun backend-process.ts SOCKET OPTIONS`, options as JSON. Says "ready" when it
 * listens, and at the end of each session a line of JSON with how it ended and the messages that came. SIGUSR1: its
 * device's config space has changed.
 */
import { DeviceService } from "../../src/backend/mod.ts";
import { EventLoop, UnixListener } from "../../src/sys/mod.ts";
import { dialects, tableFor } from "../../src/wire/mod.ts";
import { SlowDevice } from "./slow-device.ts";
import type { BackendProcessOptions } from "./spawn-backend.ts";
import { stateBulk } from "./state-bulk.ts";
import { TestDevice } from "./test-device.ts";

const [path = "", json = "{}"] = process.argv.slice(2);
const options = JSON.parse(json) as BackendProcessOptions;
const loop = new EventLoop();
const device = options.slow ? new SlowDevice(loop) : new TestDevice(16, 0xffn);
device.bulk = () => stateBulk(options.bulkBytes ?? 0);

const table = tableFor(dialects.spec);
const messages: string[] = [];
const frontend = new Map(table.frontend);
frontend.get = (number) => {
  const message = table.frontend.get(number);
  messages.push(message?.name ?? `message ${number}`);
  return message;
};

new DeviceService(device, UnixListener.listen(path), loop, {
  table: { ...table, frontend },
  onSessionEnd: (end) => {
    console.log(
      JSON.stringify({ end: end.kind, messages: messages.splice(0), received: device.bulkReceived }),
    );
  },
});
// Told by a signal, so that the test's own messages are the session's alone.
process.on("SIGUSR1", () => device.frontend?.configChange());
console.log("ready");
await loop.run();
