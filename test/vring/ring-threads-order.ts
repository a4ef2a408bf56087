import type { RingLayout } from "../../src/vring/mod.ts";

/** What the thread is told: the number of an fd that it then owns, and how many requests to make. */
export interface DriverOrder {
  readonly fdNumber: number;
  readonly layout: RingLayout;
  readonly requests: number;
}

/** Lengths that tell the request's number in every field that the device reads. */
export function lengthsOf(request: number): [number, number, number] {
  return [1 + (request % 1009), 1 + (request % 2003), 1 + (request % 4001)];
}
