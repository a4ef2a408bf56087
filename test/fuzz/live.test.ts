import { expect, test } from "bun:test";
import { fuzzLive, liveCorpus, resealLive, runLive } from "./live.ts";

test.each(liveCorpus())("corpus: %s", (name, bytes) => {
  for (const pieceBytes of [1, 7, 100_000]) {
    expect(runLive(bytes, pieceBytes) === "accepted").toBe(name.startsWith("ok-"));
  }
});

test("mending whole frames changes nothing", () => {
  for (const [name, bytes] of liveCorpus()) {
    if (!name.startsWith("ok-")) continue;
    const mended = new Uint8Array(bytes);
    resealLive(mended);
    expect(Buffer.compare(mended, bytes)).toBe(0);
  }
});

test("20,000 damaged connections are refused or understood, and a seed gives the same run twice", () => {
  const first = fuzzLive(20261125, 20_000);
  expect(first.size).toBeGreaterThan(5);
  expect([...fuzzLive(20261125, 500)]).toEqual([...fuzzLive(20261125, 500)]);
});
