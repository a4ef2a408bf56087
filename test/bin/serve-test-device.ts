import { DeviceService } from "../../src/backend/mod.ts";
import { EventLoop, UnixListener } from "../../src/sys/mod.ts";
import { TestDevice } from "../support/test-device.ts";

// A child process of a test: serves the TestDevice at the socket that it is given, until it is killed.
const [path = ""] = process.argv.slice(2);
const loop = new EventLoop();
const listener = UnixListener.listen(path);
using _service = new DeviceService(new TestDevice(), listener, loop);
await loop.run();
