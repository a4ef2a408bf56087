/** A back-end whose device has a large state: SIZE incompressible bytes, in pieces of 1 MiB. `… PATH SIZE` */
import { randomFillSync } from "node:crypto";
import { DeviceService } from "../../../src/backend/mod.ts";
import { STATE_CHUNK_BYTES } from "../../../src/limits.ts";
import { EventLoop, UnixListener } from "../../../src/sys/mod.ts";
import { TestDevice } from "../../support/test-device.ts";

const [path, size] = process.argv.slice(2) as [string, string];
const bytes = new Uint8Array(new ArrayBuffer(Number(size)));
const device = new TestDevice();
for (let at = 0; at < bytes.length; at += STATE_CHUNK_BYTES)
  randomFillSync(bytes.subarray(at, at + STATE_CHUNK_BYTES));
device.bulk = function* () {
  for (let at = 0; at < bytes.length; at += STATE_CHUNK_BYTES)
    yield bytes.subarray(at, at + STATE_CHUNK_BYTES);
};
using loop = new EventLoop();
using _service = new DeviceService(device, UnixListener.listen(path), loop, { once: true });
console.log("ready");
await loop.run();
