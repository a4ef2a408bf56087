import { expect, test } from "bun:test";
import { LoopbackEnd, NetDevice, netFeature } from "../../../devices/net/mod.ts";
import { EventLoop, signalEvent } from "../../../src/sys/mod.ts";
import { BackendRig } from "../../support/backend-rig.ts";
import { frame, HEADER_BYTES, MAC } from "./net-rig.ts";

const RECEIVE = 0;
const TRANSMIT = 1;
const DEADLINE_MS = 10_000;
/** Many times what a disabled ring is given. */
const LONG_MS = 300;

const message = new Uint8Array(Buffer.concat([new Uint8Array(HEADER_BYTES), frame(1)]));

/** A loopback device behind a front-end: what is sent comes back. The transmit ring is started and disabled. */
class Rig implements Disposable {
  readonly #stack = new DisposableStack();
  readonly loop = this.#stack.use(new EventLoop());
  readonly device = this.#stack.use(new NetDevice(new LoopbackEnd(this.loop), this.loop, { mac: MAC }));
  readonly rig = this.#stack.use(new BackendRig({ device: this.device }));
  readonly receive = this.rig
    .negotiate(["REPLY_ACK", "MQ"], netFeature.MRG_RXBUF)
    .shareMemory()
    .ring(RECEIVE);
  readonly transmit = this.rig.ring(TRANSMIT);

  constructor() {
    this.receive.add(new Uint8Array(message.length));
    this.receive.start();
    this.transmit.start(0, false);
  }

  send(): void {
    this.transmit.add(message);
    signalEvent(this.transmit.kick);
  }

  /** Lets both loops turn until it is so, or for so long. */
  turn(isDone: () => boolean, timeoutMs = DEADLINE_MS): boolean {
    for (const end = performance.now() + timeoutMs; performance.now() < end; ) {
      this.rig.loop.runOnce(1);
      this.loop.runOnce(0);
      if (isDone()) return true;
    }
    return false;
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }
}

test("a transmit ring that is started and disabled is emptied, and nothing of it is sent", () => {
  using rig = new Rig();
  rig.send();
  rig.send();
  const back: Uint8Array[] = [];
  expect(rig.turn(() => back.push(...rig.transmit.take()) === 2)).toBe(true);
  expect(rig.turn(() => rig.receive.take().length > 0, LONG_MS)).toBe(false);
  // Enabled, it is a ring like others.
  rig.rig.client.setVringEnable(TRANSMIT, true);
  rig.send();
  expect(rig.turn(() => rig.receive.take().length > 0)).toBe(true);
  // And again disabled.
  rig.rig.client.setVringEnable(TRANSMIT, false);
  rig.transmit.take();
  rig.send();
  expect(rig.turn(() => rig.transmit.take().length === 1)).toBe(true);
});

test("a front-end that starts the ring, and then enables it, loses no frame between the two", () => {
  using rig = new Rig();
  rig.send();
  rig.turn(() => false, 5);
  rig.rig.client.setVringEnable(TRANSMIT, true);
  expect(rig.turn(() => rig.receive.take().length > 0)).toBe(true);
});

test("a receive ring that is disabled is given nothing", () => {
  using rig = new Rig();
  rig.rig.client.setVringEnable(TRANSMIT, true);
  rig.rig.client.setVringEnable(RECEIVE, false);
  rig.send();
  expect(rig.turn(() => rig.receive.take().length > 0, LONG_MS)).toBe(false);
  rig.rig.client.setVringEnable(RECEIVE, true);
  expect(rig.turn(() => rig.receive.take().length > 0)).toBe(true);
});
