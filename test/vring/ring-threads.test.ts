import { describe, expect, test } from "bun:test";
import { Deadline } from "../../src/sys/mod.ts";
import { Chain, type DeviceRing } from "../../src/vring/mod.ts";
import { BUFFERS, KINDS, RingFixture } from "./ring-fixture.ts";
import { type DriverOrder, lengthsOf } from "./ring-threads-order.ts";

const REQUESTS = 30_000;

/** Serves all requests and returns the first whose fields are not those that the driver wrote. */
function serveAll(ring: DeviceRing): string {
  const chain = new Chain();
  const deadline = new Deadline(30_000);
  for (let request = 0; request < REQUESTS; ) {
    if (!ring.pop(chain)) {
      ring.publish();
      if (deadline.expired) return `the driver's thread stopped before request ${request}`;
      continue;
    }
    const lengths = lengthsOf(request);
    for (let i = 0; i < 3; i++) {
      if (chain.lengths[i] !== lengths[i] || chain.guestAddresses[i] !== BUFFERS + lengths[i]!) {
        return `request ${request}, piece ${i}: ${chain.lengths[i]} bytes at ${chain.guestAddresses[i]}`;
      }
    }
    ring.complete(chain, lengths[2]);
    if (request % 3 === 0) ring.publish();
    request++;
  }
  ring.publish();
  return "done";
}

describe("driver and device in two threads, both spinning: every field is that of its request", () => {
  for (const { name, ...kind } of KINDS.filter((one) => !one.indirect && !one.eventIdx)) {
    test(name, async () => {
      using fixture = new RingFixture({ ...kind, size: 16 });
      using ring = fixture.device();
      const worker = new Worker(new URL("./ring-threads-driver.ts", import.meta.url).href);
      try {
        const messages: string[] = [];
        let heard: () => void = () => undefined;
        const next = async () => {
          while (messages.length === 0) await new Promise<void>((resolve) => (heard = resolve));
          return messages.shift();
        };
        worker.onmessage = (event: MessageEvent<string>) => {
          messages.push(event.data);
          heard();
        };
        const fdNumber = fixture.fd.duplicate("memory for the driver's thread").take();
        const order: DriverOrder = { fdNumber, layout: fixture.layout, requests: REQUESTS };
        worker.postMessage(order);
        expect(await next()).toBe("ready");
        expect(serveAll(ring)).toBe("done");
        expect(await next()).toBe("done");
      } finally {
        worker.terminate();
      }
    }, 60_000);
  }
});
