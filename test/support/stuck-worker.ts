import { WorkerRings } from "../../src/backend/mod.ts";
import { createEventFd, Deadline, EventLoop, type Fd, signalEvent } from "../../src/sys/mod.ts";
import { BackendRig } from "./backend-rig.ts";
import { TestDevice } from "./test-device.ts";

const PROGRAM = new URL("./ring-programs/echo-program.ts", import.meta.url);
const TIMEOUT_MS = 20_000;
/** How long a Worker may take here before it is late. */
const PATIENCE_MS = 100;

/** Its Worker stays in a system call for each request, until the fd is readable. */
class StuckDevice extends TestDevice {
  readonly ringProgram = PROGRAM;
  readonly #count = new Int32Array(new SharedArrayBuffer(4));

  constructor(readonly release: Fd) {
    super(4, 0xffn);
  }

  startQueueInWorker(index: number): unknown {
    this.calls.push(`start ${index}`);
    return { stuck: { until: this.release.number, count: this.#count.buffer } };
  }

  /** Waits until the Worker is in its system call for the `nth` time. */
  waitUntilStuck(nth = 1): void {
    const deadline = new Deadline(TIMEOUT_MS);
    while (Atomics.load(this.#count, 0) < nth) if (deadline.expired) throw new Error("it did not happen");
  }
}

/** A device whose Worker gets stuck. */
export class Stuck implements Disposable {
  readonly #stack = new DisposableStack();
  readonly loop = this.#stack.use(new EventLoop());
  readonly release = this.#stack.use(createEventFd("release"));
  readonly device = new StuckDevice(this.release);
  readonly workers = this.#stack.use(new WorkerRings(this.loop, PROGRAM, { timeoutMs: PATIENCE_MS }));

  connect(): BackendRig {
    const options = { device: this.device, ringWorkers: this.workers, drainTimeoutMs: 10 };
    return new BackendRig(options).negotiate(["REPLY_ACK", "CONFIG", "MQ", "CONFIGURE_MEM_SLOTS"]);
  }

  /** Lets the Worker go on, and waits until it has answered everything. */
  free(): void {
    signalEvent(this.release);
    const deadline = new Deadline(TIMEOUT_MS);
    while (this.workers.isLate) {
      if (deadline.expired) throw new Error("it did not happen");
      this.loop.runOnce(10);
    }
    this.workers.whenBack(() => {});
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

/** A session whose Worker is in a system call that does not return, with a request of the driver's. */
export function getStuck(stuck: Stuck) {
  const rig = stuck.connect();
  const ring = rig.shareMemory().ring().start();
  ring.add(new TextEncoder().encode("stuck"));
  signalEvent(ring.kick);
  stuck.device.waitUntilStuck();
  try {
    rig.handler.getVringBase(0);
  } catch (error) {
    if ((error as Error).message.includes("did not answer within")) return { rig, ring };
  }
  throw new Error("it is not stuck");
}
