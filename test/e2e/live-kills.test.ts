import { expect, test } from "bun:test";
import { killMigrations } from "../support/live-kills.ts";
import { NetNamespace } from "../support/net-namespace.ts";

test.skipIf(!NetNamespace.isPossible)(
  "whatever is killed or cut at whatever moment of a migration: never two run it, and one does or recovery leads there",
  async () => {
    const { outcomes } = await killMigrations(20261125, 6);
    expect(Object.values(outcomes).reduce((sum, count) => sum + count, 0)).toBe(6);
  },
  240_000,
);
