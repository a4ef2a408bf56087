import { expect, test } from "bun:test";
import { measureDamageMemory } from "../../support/damage-memory.ts";
import { damagedKinds } from "../../support/damage-snapshots.ts";

/** All 10,000 flips and 1,000 cuts: npm run soak -- snapshot-damage-memory-plain, -incremental, -encrypted. */
test.each(damagedKinds)(
  "a damaged or forged %s file needs no more than twice the memory of the intact one",
  async (kind) => {
    const { intact } = await measureDamageMemory(kind, 20261125, 40, 10);
    expect(intact).toBeGreaterThan(10);
  },
  60_000,
);
