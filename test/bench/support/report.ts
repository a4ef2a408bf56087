import { cpus, loadavg, release } from "node:os";
import type { ContestResult, Spread } from "./contest.ts";

/** The machine and its load, as far as they matter to whoever compares figures. */
export function describeMachine() {
  const list = cpus();
  return {
    processors: list.length,
    model: list[0]?.model ?? "unknown",
    kernel: release(),
    bun: Bun.version,
    loadAverage: Math.round(loadavg()[0]! * 100) / 100,
  };
}

/** A contest as lines of text: the contenders, then what was to be shown. */
export function reportLines(result: ContestResult): string[] {
  const { title, unit, rounds, figures, goals } = result;
  const width = Math.max(...figures.map(({ name }) => name.length), 12);
  return [
    `${title} (${unit}, ${rounds} rounds)`,
    `  ${"".padEnd(width)}  ${["median", "min", "max"].map((head) => head.padStart(10)).join("")}`,
    ...figures.map(({ name, ...spread }) => `  ${name.padEnd(width)}  ${columns(spread)}`),
    ...goals.map(
      ({ text, measured, verdict }) =>
        `  ${text}: ${verdict.toUpperCase()}, ${short(measured.median)} (${short(measured.min)} to ${short(measured.max)})`,
    ),
  ];
}

function columns({ median, min, max }: Spread): string {
  return [median, min, max].map((value) => short(value).padStart(10)).join("");
}

/** Three or four digits that mean something. */
function short(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value >= 100 ? value.toFixed(1) : value.toFixed(2);
}
