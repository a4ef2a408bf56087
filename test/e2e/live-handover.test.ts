import { expect, test } from "bun:test";
import { killAtHandover } from "../support/handover-kills.ts";
import { NetNamespace } from "../support/net-namespace.ts";

// All moments: `npm run soak -- handover-kills`.
test.skipIf(!NetNamespace.isPossible)(
  "vhu is killed on the source when it has given the machine up, and on both hosts at that: one host runs it in the end",
  async () => {
    expect(await killAtHandover(["sender", "released"])).toMatch(/at [ab]$/);
    expect(await killAtHandover(["sender", "released"], true)).toMatch(/at [ab]$/);
  },
  300_000,
);

test.skipIf(!NetNamespace.isPossible)(
  "vhu is killed on the destination when all of the machine is there: one host runs it in the end",
  async () => {
    expect(await killAtHandover(["receiver", "loaded"])).toMatch(/at [ab]$/);
  },
  300_000,
);
