/** Saves a back-end's state of at least SIZE bytes to /dev/null, and prints the nanoseconds up to CHECK's answer. `… PATH SIZE` */
import { openSync, writeSync } from "node:fs";
import { Connection, RequestChannel } from "../../../src/connection/mod.ts";
import { BackendClient, saveDeviceState } from "../../../src/frontend/mod.ts";
import { connectUnix } from "../../../src/sys/mod.ts";
import { dialects, protocolFeature, tableFor } from "../../../src/wire/mod.ts";

const [path, size] = process.argv.slice(2) as [string, string];
const target = openSync("/dev/null", "w");
using client = new BackendClient(
  new RequestChannel(new Connection(connectUnix(path))),
  tableFor(dialects.spec),
);
client.setOwner();
client.getFeatures();
client.getProtocolFeatures();
client.setProtocolFeatures(protocolFeature.DEVICE_STATE);
const start = Bun.nanoseconds();
const sizeBytes = await saveDeviceState(client, (bytes) => void writeSync(target, bytes));
const end = Bun.nanoseconds();
if (sizeBytes < Number(size)) throw new Error(`the state has ${sizeBytes} bytes`);
console.log(end - start);
