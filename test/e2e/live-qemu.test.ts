import { expect, test } from "bun:test";
import { requirePeers } from "../peers/mod.ts";
import { hopQemu } from "../support/live-qemu.ts";
import { BOOT_TIMEOUT_MS } from "../support/living-guest.ts";
import { NetNamespace } from "../support/net-namespace.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const possible = peers !== undefined && NetNamespace.isPossible;

test.skipIf(!possible).each(["memory", "disk"] as const)(
  "a QEMU guest moves there and back while it works on its %s: the same life, its counter never goes back, nothing is lost",
  async (work) => {
    const { hops, downtimesMs } = await hopQemu(work, 2);
    expect(hops).toBe(2);
    expect(downtimesMs.every((downtimeMs) => downtimeMs > 0)).toBe(true);
  },
  3 * BOOT_TIMEOUT_MS,
);
