/** A network device whose frames come back to it, for one front-end: `net-backend.ts SOCKET`. */
import { LoopbackEnd, NetDevice } from "../../../devices/net/mod.ts";
import { DeviceService } from "../../../src/backend/mod.ts";
import { EventLoop, UnixListener } from "../../../src/sys/mod.ts";

using loop = new EventLoop();
using device = new NetDevice(new LoopbackEnd(loop), loop);
using _service = new DeviceService(device, UnixListener.listen(process.argv[2]!), loop, { once: true });
console.log("ready");
await loop.run();
