import { expect, test } from "bun:test";
import { damagedKinds, damageSnapshots } from "../../support/damage-snapshots.ts";

// A sample; `npm run soak -- snapshot-damage-plain` (-incremental, -encrypted) has 10,000 flips and 1,000 cuts of each kind.
test.each([...damagedKinds])(
  "every flip and cut of a snapshot is found and named: %s",
  async (kind) => {
    const { places } = await damageSnapshots(kind, 20261123, 150, 50);
    expect(Object.values(places).reduce((sum, count) => sum + count, 0)).toBe(200);
  },
  120_000,
);
