import { parseTypedOption } from "./option-list.ts";

const MIB = 2 ** 20;
const UNITS: Readonly<Record<string, number>> = { B: 1, K: 2 ** 10, M: MIB, G: 2 ** 30, T: 2 ** 40 };

/** What QEMU allocates for its guest by its arguments: the larger of `-m` and its memory backends, which may be beside that. */
export function qemuMemoryBytes(args: readonly string[]): number {
  const sizes = (name: string, isOne: (kind: string) => boolean, key: string, unit: number) =>
    args.flatMap((word, at) => {
      if (args[at - 1] !== name) return [];
      const pairs = parseTypedOption(word) ?? [];
      if (!isOne(pairs[0]?.value ?? "")) return [];
      return pairs.flatMap((pair, index) =>
        pair.key === key || (name === "-m" && index === 0 && pair.key === "")
          ? bytesOf(pair.value, unit)
          : [],
      );
    });
  const own = Math.max(0, ...sizes("-m", () => true, "size", MIB));
  const backends = sizes("-object", (kind) => kind.startsWith("memory-backend-"), "size", 1);
  return Math.max(
    own,
    backends.reduce((sum, bytes) => sum + bytes, 0),
  );
}

function bytesOf(text: string, unit: number): number[] {
  const [, digits, letter = ""] = /^([0-9.]+)([KMGTkmgtBb]?)$/.exec(text) ?? [];
  return digits === undefined ? [] : [Number(digits) * (UNITS[letter.toUpperCase()] ?? unit)];
}
