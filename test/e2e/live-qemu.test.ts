import { expect, test } from "bun:test";
import { requirePeers } from "../peers/mod.ts";
import { hopQemu } from "../support/live-qemu.ts";
import { BOOT_TIMEOUT_MS } from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox", "virtiofsd"]);
const possible = peers !== undefined && NetNamespace.isPossible;

// There and back ten times over each link: `npm run soak -- live-qemu`.
test.skipIf(!possible)(
  "a QEMU guest moves between two hosts at 1 Gbit/s, over a link that loses 1% of the frames, and over one with a round trip of 100 ms: one life, nothing lost of memory, disk, open files and connection",
  async () => {
    const faults = [undefined, undefined, { lossPercent: 1 }, { delayMs: 50 }];
    const { legs } = await hopQemu(faults.map((each) => ({ hops: 1, faults: each })));
    expect(legs.every(({ downtimesMs, silencesMs }) => downtimesMs[0]! > 0 && silencesMs[0]! > 0)).toBe(true);
    expect(legs[2]!.frames!.lost).toBeGreaterThan(0);
  },
  5 * BOOT_TIMEOUT_MS,
);
