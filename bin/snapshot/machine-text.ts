/** What a QEMU machine's description says beyond its name, as far as it is known; undefined for another machine. */
export function machineText(machine: Readonly<Record<string, unknown>> | undefined): string | undefined {
  if (machine?.kind !== "qemu") return undefined;
  const { machineType, version, cpuCount, cpuType, origin } = machine;
  const words = [
    `${machineType}`,
    ...(version === undefined ? [] : [`QEMU ${version}`]),
    ...(cpuCount === undefined ? [] : [`${cpuCount} × ${cpuType ?? "CPU"}`]),
  ];
  const unknown = (origin as { unknown?: unknown } | undefined)?.unknown;
  return words.join(", ") + (Array.isArray(unknown) ? `; not known: ${unknown.join(", ")}` : "");
}
