/**
 * How files of older versions are read: one step for each version, from it to the next. A step gets what was valid in its
 * version; the reader only knows the newest. What the steps do not name is the same in both versions.
 */
type Json = Readonly<Record<string, unknown>>;

interface UpgradeStep {
  header(header: Json): Json;
}

const STEPS: readonly UpgradeStep[] = [
  {
    // 0 to 1: host and labels may be missing, and nobody noted the CPU.
    header: (header) => ({
      ...header,
      host: {
        kernel: "unknown",
        architecture: "unknown",
        cpu: "unknown",
        ...(header.host as Json | undefined),
      },
      labels: header.labels ?? {},
    }),
  },
];

/** A header as the newest version has it. */
export function upgradeHeader(header: Json, fromVersion: number): Json {
  return STEPS.slice(fromVersion).reduce((upgraded, step) => step.header(upgraded), header);
}
