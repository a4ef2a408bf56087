/**
 * Prints the nanoseconds of one GET_FEATURES, the mean of COUNT, as a BackendClient asks it. `… PATH WARMUP COUNT WAIT`
 *
 * WAIT is "in-line" (the thread blocks in recvmsg), or "loop" for what VhostUserFrontend does once BACKEND_REQ was
 * negotiated: an event loop turns while the answer is awaited, since the back-end may ask for something first.
 */
import { Connection, RequestChannel } from "../../../src/connection/mod.ts";
import { BackendClient } from "../../../src/frontend/mod.ts";
import { connectUnix, EventLoop, POLL } from "../../../src/sys/mod.ts";
import { dialects, tableFor } from "../../../src/wire/mod.ts";

const [path, warmUp, count, wait] = process.argv.slice(2) as [string, string, string, string];
using loop = new EventLoop();
const channel = new RequestChannel(new Connection(connectUnix(path)));
if (wait === "loop") {
  loop.watch(channel.connection.socket.fd, POLL.IN, () => {});
  channel.whileWaiting = (remainingMs) => void loop.runOnce(remainingMs);
}
using client = new BackendClient(channel, tableFor(dialects.spec));
client.setOwner();
let seen = 0n;
for (let i = 0; i < Number(warmUp); i++) seen |= client.getFeatures();
const start = Bun.nanoseconds();
for (let i = 0; i < Number(count); i++) seen |= client.getFeatures();
const end = Bun.nanoseconds();
if (seen === 0n) throw new Error("no features");
console.log((end - start) / Number(count));
