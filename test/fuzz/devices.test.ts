import { expect, test } from "bun:test";
import { deviceCorpus, fuzzDevices } from "./devices.ts";

test("the corpus has what each kind of queue begins with", () => {
  expect(deviceCorpus().length).toBeGreaterThan(8);
});

test("hostile drivers of every device: errors and queues out of service, nothing else", () => {
  const refused = fuzzDevices(20261125, 4_000);
  expect([...refused.keys()].sort()).toEqual(["blk", "console", "net", "rng"]);
});
