import { expect, test } from "bun:test";
import { Convergence } from "../../migrate/convergence.ts";

function convergence() {
  const clock = { ms: 0 };
  return { clock, it: new Convergence(() => clock.ms) };
}

test("what gets less goes on for ever", () => {
  const { clock, it } = convergence();
  for (let remaining = 1e9; remaining > 1; remaining *= 0.85) {
    clock.ms += 60_000;
    expect(it.add(remaining, false)).toBe(true);
  }
});

test("what does not get less ends after some passes and some time, whichever comes later", () => {
  const quick = convergence();
  for (let pass = 0; pass < 100; pass += 1) {
    quick.clock.ms += 10;
    expect(quick.it.add(1e6, false)).toBe(true);
  }
  quick.clock.ms += 60_000;
  expect(quick.it.add(1e6, false)).toBe(false);
  const slow = convergence();
  const verdicts = Array.from({ length: 9 }, () => {
    slow.clock.ms += 60_000;
    return slow.it.add(1e6, false);
  });
  expect(verdicts).toEqual([...Array(8).fill(true), false]);
});

test("while the machine is slowed down more and more, nothing is decided", () => {
  const { clock, it } = convergence();
  for (let pass = 0; pass < 50; pass += 1) {
    clock.ms += 60_000;
    expect(it.add(1e6, true)).toBe(true);
  }
});
