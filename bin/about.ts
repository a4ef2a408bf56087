import { VhuError } from "../src/errors.ts";

/** Runs `act`, and has its errors say what they are about, e.g. the file: a part deep inside does not know the name. */
export function about<Result>(what: string, act: () => Result): Result {
  try {
    return act();
  } catch (error) {
    throw named(what, error);
  }
}

/** As `about`, for what takes its time. */
export async function aboutLater<Result>(what: string, act: () => Promise<Result> | Result): Promise<Result> {
  try {
    return await act();
  } catch (error) {
    throw named(what, error);
  }
}

function named(what: string, error: unknown): unknown {
  if (error instanceof VhuError && !error.message.includes(what)) error.message = `${what}: ${error.message}`;
  return error;
}
