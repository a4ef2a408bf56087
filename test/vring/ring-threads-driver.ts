import { GuestMemory } from "../../src/memory/mod.ts";
import { Fd } from "../../src/sys/mod.ts";
import { createDriverRing } from "../../src/vring/mod.ts";
import { BUFFERS, MEMORY_BYTES, USER_BASE } from "./ring-fixture.ts";
import { type DriverOrder, lengthsOf } from "./ring-threads-order.ts";

declare const self: Worker;

function drive({ fdNumber, layout, requests }: DriverOrder): string {
  using memory = new GuestMemory();
  const region = { guestAddress: 0, sizeBytes: MEMORY_BYTES, userAddress: USER_BASE, mmapOffset: 0 };
  memory.addRegion(region, new Fd(fdNumber, "memory of the driver's thread"));
  using ring = createDriverRing<number>(memory, layout);
  let answered = 0;
  let offered = 0;
  while (answered < requests) {
    const [a, b, c] = lengthsOf(offered);
    const pieces = [
      { guestAddress: BUFFERS + a, sizeBytes: a, writable: false },
      { guestAddress: BUFFERS + b, sizeBytes: b, writable: false },
      { guestAddress: BUFFERS + c, sizeBytes: c, writable: true },
    ];
    if (offered < requests && ring.add(pieces, offered)) offered++;
    for (let used = ring.popUsed(); used !== undefined; used = ring.popUsed()) {
      if (used.writtenBytes !== lengthsOf(used.token)[2])
        return `request ${used.token} got ${used.writtenBytes}`;
      answered++;
    }
  }
  return "done";
}

self.onmessage = (event: MessageEvent<DriverOrder>) => {
  self.postMessage("ready");
  self.postMessage(drive(event.data));
};
