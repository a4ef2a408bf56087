/** What all fuzz targets share: the loop over damaged inputs, and the start from a shell. */
import { mutate, randomNumbers } from "./mutate.ts";

type Random = (limit: number) => number;

/** How often each outcome of `run` was seen, of inputs that are made of the corpus as `seed` says. */
export function countOutcomes(
  corpus: readonly (readonly [string, Uint8Array])[],
  seed: number,
  iterations: number,
  run: (bytes: Uint8Array, random: Random) => string,
): Map<string, number> {
  const random = randomNumbers(seed);
  const outcomes = new Map<string, number>();
  for (let index = 0; index < iterations; index += 1) {
    const original = corpus[random(corpus.length)]![1];
    const outcome = run(mutate(original, corpus[random(corpus.length)]![1], random), random);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

/** `bun test/fuzz/NAME.ts [SEED] [INPUTS]` */
export async function fuzzFromShell(
  fuzz: (seed: number, iterations: number) => unknown | Promise<unknown>,
): Promise<void> {
  const [seed, iterations] = [
    Number(process.argv[2] ?? Date.now() % 1e9),
    Number(process.argv[3] ?? 100_000),
  ];
  console.log(`seed ${seed}, ${iterations} inputs`, await fuzz(seed, iterations));
}
