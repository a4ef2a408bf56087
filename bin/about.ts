import { VhuError } from "../src/errors.ts";

/** Runs `act`, and has its errors say what they are about, e.g. the file: a part deep inside does not know the name. */
export function about<Result>(what: string, act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    if (error instanceof VhuError && !error.message.includes(what))
      error.message = `${what}: ${error.message}`;
    throw error;
  }
}
