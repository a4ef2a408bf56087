import { expect, test } from "bun:test";
import { measureStateTransfer } from "../soak/state-transfer.ts";

const MiB = 2 ** 20;

// A sample of `npm run soak device-state`, which moves 1 GiB.
test("256 MiB of state there and back take less than 128 MiB of extra memory in each process", async () => {
  const figures = await measureStateTransfer(256 * MiB);
  expect(figures.frontendExtraMiB).toBeLessThan(128);
  expect(figures.backendExtraMiB).toBeLessThan(128);
}, 60_000);
