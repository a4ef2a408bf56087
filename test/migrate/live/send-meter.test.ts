import { expect, test } from "bun:test";
import { expectedMove } from "../../../migrate/live/expected-move.ts";
import { type SendCounts, SendMeter } from "../../../migrate/live/send-meter.ts";

const WAY = { bytesPerSecond: 100e6, roundTripMs: 10 };

test("what a move takes: the memory in use once, and again what was changed meanwhile", () => {
  expect(expectedMove({ ...WAY, inUseBytes: 1e9 })).toEqual({ expectedMs: 10_000, expectedDowntimeMs: 50 });
  const busy = expectedMove({ ...WAY, inUseBytes: 1e9, dirtyBytesPerSecond: 50e6, downtimeMaxMs: 300 });
  expect(busy).toEqual({ expectedMs: 20_000, expectedDowntimeMs: 320 });
});

test("little memory that hardly changes is there before the pause is over", () => {
  expect(expectedMove({ ...WAY, inUseBytes: 1e6 })).toEqual({ expectedMs: 10, expectedDowntimeMs: 30 });
});

test("a machine that changes its memory faster than the way takes it is never there", () => {
  const { expectedMs, expectedDowntimeMs } = expectedMove({
    ...WAY,
    inUseBytes: 1,
    dirtyBytesPerSecond: 200e6,
  });
  expect(expectedMs).toBeUndefined();
  expect(expectedDowntimeMs).toBe(50);
});

function counts(doneBytes: number, givenBytes: number, packedBytes: number): SendCounts {
  const rest = { wireBytes: packedBytes, reconnections: 0 };
  return { phase: "memory", doneBytes, totalBytes: 1_000e6, givenBytes, packedBytes, ...rest };
}

test("a meter tells passes, rates, ratio, time left and downtime of a move that is under way", () => {
  let now = 0;
  const meter = new SendMeter({ roundTripMs: 10 }, () => now);
  const first = meter.progress(counts(0, 0, 0));
  expect(first).toMatchObject({ passes: 0, remainingBytes: 1_000e6 });
  expect([first.ratio, first.remainingMs, first.wireBytesPerSecond]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  now = 1_000;
  expect(meter.progress(counts(500e6, 500e6, 100e6))).toMatchObject({
    ...{ passes: 0, remainingBytes: 500e6, memoryBytesPerSecond: 500e6, wireBytesPerSecond: 100e6, ratio: 5 },
    ...{ remainingMs: 1_000, expectedDowntimeMs: 50 },
  });
  now = 2_000;
  const pass = { passNumber: 0, sentBytes: 1_000e6, dirtyBytes: 200e6, milliseconds: 2_000 };
  meter.pass({ ...pass, dirtyBytesPerSecond: 100e6 }, 1_000e6);
  now = 2_100;
  // 150 of the 200 MB are left; the rates are those of the last two seconds, and a fifth is changed meanwhile.
  expect(meter.progress(counts(1_000e6, 1_050e6, 210e6))).toMatchObject({
    ...{ passes: 1, remainingBytes: 150e6, memoryBytesPerSecond: 500e6, dirtyBytesPerSecond: 100e6 },
    ...{ remainingMs: 375, expectedDowntimeMs: 50 },
  });
});
