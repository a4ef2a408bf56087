/** Prints the nanoseconds of one GET_FEATURES, the mean of COUNT, as a BackendClient asks it. `… PATH WARMUP COUNT` */
import { Connection, RequestChannel } from "../../../src/connection/mod.ts";
import { BackendClient } from "../../../src/frontend/mod.ts";
import { connectUnix } from "../../../src/sys/mod.ts";
import { dialects, tableFor } from "../../../src/wire/mod.ts";

const [path, warmUp, count] = process.argv.slice(2) as [string, string, string];
using client = new BackendClient(
  new RequestChannel(new Connection(connectUnix(path))),
  tableFor(dialects.spec),
);
client.setOwner();
let seen = 0n;
for (let i = 0; i < Number(warmUp); i++) seen |= client.getFeatures();
const start = Bun.nanoseconds();
for (let i = 0; i < Number(count); i++) seen |= client.getFeatures();
const end = Bun.nanoseconds();
if (seen === 0n) throw new Error("no features");
console.log((end - start) / Number(count));
