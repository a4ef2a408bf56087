import { type FinalCounts, type Hop, MigratingGuest } from "./migrating-guest.ts";

export interface RoundTrips extends FinalCounts {
  readonly hops: readonly Hop[];
  readonly downtimeMs: readonly number[];
  /** What all the daemons have logged. */
  readonly logs: string;
}

/** Migrates a busy guest to another QEMU and back, `count` times. Throws when anything is lost. */
export async function migrateThereAndBack(dir: string, count: number): Promise<RoundTrips> {
  await using guest = await MigratingGuest.start(dir);
  const hops: Hop[] = [];
  for (let hop = 0; hop < 2 * count; hop++) {
    hops.push(await guest.migrate());
    await guest.goesOn();
  }
  const end = await guest.finish();
  return { ...end, hops, downtimeMs: hops.map((hop) => hop.downtimeMs), logs: guest.log(0) + guest.log(1) };
}

export function describeRoundTrips({ hops, blocks, counted, downtimeMs }: RoundTrips): string {
  const totals = hops.map(({ totalMs }) => totalMs);
  return (
    `${hops.length} migrations: downtime ${downtimeMs.join(", ")} ms, in all ${totals.join(", ")} ms; ` +
    `${blocks} blocks and ${counted} numbers, none lost`
  );
}
