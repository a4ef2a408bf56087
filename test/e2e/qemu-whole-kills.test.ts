import { expect, test } from "bun:test";
import { requirePeers } from "../peers/mod.ts";
import { killQemuOperations } from "../support/kill-qemu-operations.ts";

const peers = requirePeers(["qemu-system-x86_64", "guest-kernel", "busybox"]);

test.skipIf(!peers)(
  "SIGKILL of vhu, QEMU or its disk's daemon in the middle of a save or a load: a sample of the soak",
  async () => {
    const kills = await killQemuOperations(20261125, { savesOfOne: 2, saves: 1, loads: 3 });
    expect(kills).toMatchObject({ saves: 3, loads: 3 });
  },
  300_000,
);
