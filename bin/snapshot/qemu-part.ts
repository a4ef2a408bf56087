import { formatBytes } from "../output/format.ts";

/** A line about a QEMU machine: what it is about, what kind of thing that is, and what is known of it. */
export interface QemuRow {
  readonly what: string;
  readonly name: string;
  readonly detail: string;
}

const SHORT_BUILD_CHARACTERS = 23;

type Json = Readonly<Record<string, unknown>>;

/**
 * The virtio devices, back-ends and disks of a QEMU machine; none for another machine. For people: what a load takes of it
 * is validated there, field by field.
 */
export function qemuRows(machine: Json | undefined): QemuRow[] {
  if (machine?.kind !== "qemu") return [];
  return [
    ...objects(machine.virtioDevices).map(({ type, path, features }) => ({
      what: text(type),
      name: text(path),
      detail: `${Array.isArray(features) ? features.length : 0} features accepted`,
    })),
    ...objects(machine.backends).map(({ type, socket, executable, version, build, pid }) => ({
      what: `back-end (${text(type)})`,
      name: text(socket),
      detail: [text(executable), version, shortBuild(build), pid && `was process ${pid}`]
        .filter(Boolean)
        .join(", "),
    })),
    ...objects(machine.disks).map(({ path, format, sizeBytes, readOnly, copy, frozen }) => ({
      what: "disk",
      name: text(path),
      detail: `${text(format)}, ${formatBytes(Number(sizeBytes))}${readOnly === true ? ", read-only" : ""}; ${whereIs(copy, frozen)}`,
    })),
  ];
}

function whereIs(copy: unknown, frozen: unknown): string {
  const [found] = objects([copy]);
  if (found === undefined) return frozen === true ? "frozen, not in the snapshot" : "not in the snapshot";
  return `copied to ${text(found.file)}${found.key === undefined ? "" : ", encrypted"}`;
}

function objects(value: unknown): Json[] {
  const isObject = (item: unknown): item is Json => typeof item === "object" && item !== null;
  return Array.isArray(value) ? value.filter(isObject) : [];
}

/** As much of a hash as people compare. */
function shortBuild(build: unknown): string | undefined {
  return typeof build === "string" ? build.slice(0, SHORT_BUILD_CHARACTERS) : undefined;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "unknown";
}
