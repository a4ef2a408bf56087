import type { VerifyProblem } from "../../migrate/snapshot/mod.ts";

interface Named {
  readonly id: number;
  readonly name: string;
}

/** A damaged place, with the names of the device and the memory region instead of their numbers. */
export function placed(
  { section, offset, message }: VerifyProblem,
  devices: readonly Named[],
  regions: readonly Named[],
): string {
  const nameOf = (list: readonly Named[], id: string) => list.find((each) => each.id === Number(id))?.name;
  const part = section
    .replace(/\bdevice-state (\d+)/, (whole, id) =>
      nameOfOr(nameOf(devices, id), "the state of device", whole),
    )
    .replace(/\bmemory region (\d+)/, (whole, id) => nameOfOr(nameOf(regions, id), "memory", whole));
  const place = offset < 0 ? section : `${section}, offset ${offset}`;
  const text = message
    .replace(` (${place})`, "")
    .replace(/\bregion (\d+)(?= 0x)/g, (whole, id) => nameOfOr(nameOf(regions, id), "memory", whole));
  return `${offset < 0 ? part : `${part} at ${offset}`}: ${text}`;
}

function nameOfOr(name: string | undefined, what: string, otherwise: string): string {
  return name === undefined ? otherwise : `${what} ${name}`;
}
