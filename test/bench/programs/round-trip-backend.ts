/** Serves one front-end with a device for tests, until it hangs up: BackendSession on its usual loop. `… PATH` */
import { DeviceService } from "../../../src/backend/mod.ts";
import { EventLoop, UnixListener } from "../../../src/sys/mod.ts";
import { TestDevice } from "../../support/test-device.ts";

using loop = new EventLoop();
using _service = new DeviceService(new TestDevice(), UnixListener.listen(process.argv[2]!), loop, {
  once: true,
});
console.log("ready");
await loop.run();
