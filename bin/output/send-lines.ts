import type { Preflight, SendOptions } from "../../migrate/live/mod.ts";
import type { PassReport } from "../../migrate/mod.ts";
import { formatBytes, formatDuration } from "./format.ts";

type SendProgress = Parameters<NonNullable<SendOptions["onProgress"]>>[0];

/** What is to be expected of a move, before it begins. */
export function expectationLines(preflight: Preflight): readonly [string, ...string[]] {
  const { bytesPerSecond, roundTripMs, inUseBytes, dirtyBytesPerSecond, expectedMs, expectedDowntimeMs } =
    preflight;
  if (bytesPerSecond === undefined || roundTripMs === undefined || expectedDowntimeMs === undefined) {
    return ["how fast the way there is was not measured"];
  }
  const rate =
    dirtyBytesPerSecond === undefined ? "at an unknown speed" : `at ${formatBytes(dirtyBytesPerSecond)}/s`;
  const time =
    expectedMs === undefined
      ? "never over as it is: --auto-converge slows the machine down, unless its memory compresses well"
      : `expected time ${formatDuration(expectedMs)}, less where memory compresses`;
  return [
    `the way there takes ${formatBytes(bytesPerSecond)}/s, a round trip ${formatDuration(roundTripMs)}`,
    `${formatBytes(inUseBytes)} of memory are in use and change ${rate}: ${time}`,
    `expected downtime ${formatDuration(expectedDowntimeMs)}, and what the other side takes to load the devices`,
  ];
}

export function passLine({ passNumber, sentBytes, dirtyBytes, milliseconds, ...rest }: PassReport): string {
  const { dirtyBytesPerSecond, throttlePercent = 0 } = rest;
  const rate = dirtyBytesPerSecond === undefined ? "" : `, at ${formatBytes(dirtyBytesPerSecond)}/s`;
  const slowed = throttlePercent === 0 ? "" : `; the machine is held up for ${throttlePercent}% of its time`;
  return `pass ${passNumber}: ${formatBytes(sentBytes)} in ${formatDuration(milliseconds)}, ${formatBytes(dirtyBytes)} changed meanwhile${rate}${slowed}`;
}

/** Beside the bar: round, rates, ratio, what is left, and for how long it will stand still. */
export function sendNote(progress: SendProgress): string {
  const { passes, wireBytesPerSecond, ratio, dirtyBytesPerSecond, remainingMs, expectedDowntimeMs } =
    progress;
  return [
    `pass ${passes}`,
    ...(wireBytesPerSecond === undefined ? [] : [`${formatBytes(wireBytesPerSecond)}/s`]),
    ...(ratio === undefined ? [] : [`1 : ${ratio.toFixed(1)}`]),
    ...(dirtyBytesPerSecond === undefined ? [] : [`changes ${formatBytes(dirtyBytesPerSecond)}/s`]),
    ...(remainingMs === undefined ? [] : [`${formatDuration(remainingMs)} left`]),
    ...(expectedDowntimeMs === undefined ? [] : [`downtime ${formatDuration(expectedDowntimeMs)}`]),
  ].join(", ");
}
