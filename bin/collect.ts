/** For an option that may be repeated: commander's way to gather its values. */
export function collect(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}
