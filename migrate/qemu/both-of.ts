/** Side by side; returns what the first gives. Also when one fails, the other is waited for: nothing is left at work. */
export async function bothOf<Result>(
  first: () => Promise<Result>,
  second: () => Promise<void>,
): Promise<Result> {
  const [one, other] = await Promise.allSettled([first(), second()]);
  if (one.status === "rejected") throw one.reason;
  if (other.status === "rejected") throw other.reason;
  return one.value;
}
