import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { requirePeers } from "../peers/mod.ts";
import { GUEST_TIMEOUT_MS, MigratingGuest } from "../support/migrating-guest.ts";
import { describeRoundTrips, migrateThereAndBack } from "../support/migration-round-trips.ts";
import { NetNamespace } from "../support/net-namespace.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);
const canTap = NetNamespace.isPossible;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "vhu-mig-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test.skipIf(!peers || !canTap)(
  "QEMU migrates a guest with disk and network there and back twice: no write is lost, its connection lives",
  async () => {
    const report = await migrateThereAndBack(dir, 2);
    console.log(describeRoundTrips(report));
    expect(report.hops.map(({ status }) => status)).toEqual(Array(4).fill("completed"));
    expect(report.logs).not.toMatch(/ (warn|error) /);
  },
  5 * GUEST_TIMEOUT_MS,
);

test.skipIf(!peers || !canTap)(
  "the destination refuses the state: the guest goes on where it was, with its disk and its connection",
  async () => {
    await using guest = await MigratingGuest.start(dir, ["52:54:00:00:00:02", "52:54:00:00:00:77"]);
    for (let attempt = 0; attempt < 2; attempt++) {
      expect((await guest.migrate()).status).toBe("failed");
      await guest.goesOn();
    }
    expect(guest.log(1)).toMatch(/the device state was not processed: .*52:54:00:00:00:02/);
    const { blocks, counted } = await guest.finish();
    console.log(`after two refused migrations: ${blocks} blocks, ${counted} numbers, all there`);
    expect(guest.log(0)).not.toMatch(/ (warn|error) /);
  },
  5 * GUEST_TIMEOUT_MS,
);
