import { libc, NativeBuffer } from "../../src/sys/mod.ts";

/**
 * A peer's thread that works against a blocking event fd while the other side uses it, until `shared[0]` is set: "drain"
 * takes what is there at any moment, "fill" fills the counter to the brim and empties it again. `shared[1]` counts what the
 * other side has done: where it stands still the racer has won, says so in `shared[2]`, and lets the other side go.
 */
declare const self: Worker;

const HELD_MS = 1_000;
const RWF_NOWAIT = 8;

self.onmessage = (event: MessageEvent<{ fd: number; shared: Int32Array; mode: "drain" | "fill" }>) => {
  const { fd, shared, mode } = event.data;
  // A struct iovec and its 8 bytes.
  const vector = new NativeBuffer(24);
  vector.setPointer(0, vector.address + 16);
  vector.setPointer(8, 8);
  const one = new NativeBuffer(8);
  one.bytes[0] = 1;
  const most = new NativeBuffer(8);
  most.bytes.fill(0xff);
  most.bytes[0] = 0xfe;
  const drain = () => libc.preadv2(fd, vector.address, 1, -1, RWF_NOWAIT);
  /** Until the other side has done something more, or clearly cannot. */
  const moved = () => {
    const before = Atomics.load(shared, 1);
    const end = performance.now() + HELD_MS;
    while (Atomics.load(shared, 1) === before && Atomics.load(shared, 0) === 0) {
      if (performance.now() > end) return false;
    }
    return true;
  };
  self.postMessage("ready");
  for (let round = 0; Atomics.load(shared, 0) === 0; round++) {
    drain();
    if (mode === "fill") libc.write(fd, most.address, 8);
    if (round % 64 !== 0 && mode === "drain") continue;
    if (!moved()) Atomics.add(shared, 2, 1);
    if (mode === "fill") drain();
    else if (Atomics.load(shared, 2) > 0) libc.write(fd, one.address, 8);
  }
  self.postMessage("done");
};
