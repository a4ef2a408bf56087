import type { PreflightCheck } from "../../migrate/mod.ts";
import { formatBytes, formatCount } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";
import type { DeviceDescription, RegionDescription, SnapshotDescription } from "./describe.ts";
import { machineText } from "./machine-text.ts";
import type { MemoryCell } from "./memory-cells.ts";
import { qemuRows } from "./qemu-part.ts";

const CELL_CHARACTERS: Readonly<Record<MemoryCell, string>> = {
  zero: "·",
  duplicate: "▒",
  data: "█",
  parent: "░",
  lost: "?",
};
/** Bytes of a config space that are shown. */
const SHOWN_CONFIG_BYTES = 24;
const WIDTH = 96;
const MAP_COLUMNS = 64;

/**
 * The page of `vhu snapshot inspect`. What comes from the file is printed without its control characters.
 *
 * @param checks Whether it can be loaded here; absent where nobody has looked.
 */
export function snapshotPage(
  file: string,
  snapshot: SnapshotDescription,
  checks?: readonly PreflightCheck[],
): string[] {
  const page = [
    ...headPart(file, snapshot),
    ...snapshot.devices.flatMap(devicePart),
    ...qemuPart(snapshot),
    ...memoryPart(snapshot),
    ...(checks === undefined ? [] : checksPart(checks)),
  ];
  return [...page, ...integrityPart(file, snapshot)].map(printable);
}

/** Whether it can be loaded here: each thing that was looked at, those that are in the way first. */
function checksPart(checks: readonly PreflightCheck[]): string[] {
  const failed = checks.filter(({ ok }) => !ok);
  const passed = checks.filter(({ ok }) => ok);
  const verdict =
    failed.length === 0
      ? "yes"
      : `not as it is, ${failed.length} of ${formatCount(checks.length, "check")} failed`;
  const rows = [...failed, ...passed].map(({ name, ok, detail }) => [`  ${ok ? "✓" : "✗"}`, name, detail]);
  return ["", `can it be loaded on this host? ${verdict}`, ...formatTable(rows)];
}

function headPart(file: string, snapshot: SnapshotDescription): string[] {
  const { header, machine, sizeBytes } = snapshot;
  const { writer, host, vmm } = header;
  const name = machine?.name ?? header.machine?.name;
  const counts = `${formatCount(deviceCount(snapshot), "device")}, ${formatBytes(snapshot.memory.totalBytes)} of memory`;
  const rows: [string, string][] = [
    ["snapshot", `${file}, ${formatBytes(sizeBytes)}, format version ${snapshot.formatVersion}`],
    ["id", header.id],
    ["made", `${header.createdAt} by ${writer.name} ${writer.version}`],
    ["on", `Linux ${host.kernel}, ${host.architecture}, CPU ${host.cpu}`],
  ];
  if (vmm !== undefined) {
    const words = [vmm.name, vmm.version, ...(vmm.commandLine ?? [])];
    rows.push(["by", words.filter((word) => word !== undefined).join(" ")]);
  }
  rows.push(["machine", `${typeof name === "string" ? name : "(without a name)"}: ${counts}`]);
  return formatTable([...rows, ...machineRows(machine), ...fileRows(snapshot)]);
}

/** Of the manifest, and what QEMU said of its own. */
export function deviceCount({ devices, machine }: Pick<SnapshotDescription, "devices" | "machine">): number {
  const virtio = machine?.virtioDevices;
  return devices.length + (Array.isArray(virtio) ? virtio.length : 0);
}

/** What a QEMU machine's description says beyond its name. */
function machineRows(machine: SnapshotDescription["machine"]): [string, string][] {
  const text = machineText(machine);
  return text === undefined ? [] : [["", text]];
}

function fileRows({ header, parent, ...snapshot }: SnapshotDescription): [string, string][] {
  const rows: [string, string][] = [];
  if (parent !== undefined) {
    const depth = formatCount(parent.depth, "file");
    rows.push(["based on", `${parent.file}, root ${parent.root} (${depth} below this one)`]);
  }
  if (header.runState !== undefined) rows.push(["run state", header.runState]);
  for (const [key, value] of Object.entries(header.labels)) rows.push([`label ${key}`, value]);
  const { machineStateBytes, qemuStreamBytes, isEncrypted, signedBy, ratio } = snapshot;
  if (machineStateBytes !== undefined) rows.push(["machine state", formatBytes(machineStateBytes)]);
  if (qemuStreamBytes !== undefined)
    rows.push(["QEMU stream", `${formatBytes(qemuStreamBytes)}, all but RAM`]);
  const before = formatBytes(Math.round(ratio * snapshot.sizeBytes));
  rows.push([
    "size",
    `${before} before, ${formatBytes(snapshot.sizeBytes)} in the file, ${ratio.toFixed(1)} to 1`,
  ]);
  rows.push(["encrypted", isEncrypted ? "yes, AES-256-GCM" : "no"]);
  rows.push([
    "signed",
    signedBy === undefined ? "no" : `by ed25519:${signedBy}, says the file: verify checks that`,
  ]);
  return rows;
}

function devicePart(device: DeviceDescription): string[] {
  const { backend, state } = device;
  const by = [backend.executable, backend.version].filter((part) => part !== undefined).join(" ");
  const size = state.isStored ? formatBytes(state.sizeBytes) : "none stored";
  const stored = state.damage === undefined ? size : `${size}, DAMAGED: ${state.damage}`;
  const queues = device.queues.map(({ index, size, base }) => `${index}: ${size} entries, base ${base}`);
  const rows = [
    ["  back-end", `${backend.identity}${by === "" || backend.identity.includes(by) ? "" : ` (${by})`}`],
    ["  state", `${state.format}, ${stored}`],
    ["  queues", ...wrapped(queues, "; ")],
    ["  features", ...wrapped(device.featureNames, " ")],
    ["  protocol", ...wrapped(device.protocolFeatureNames, " ")],
  ];
  if (device.socket !== undefined) rows.push(["  socket", device.socket]);
  if (device.config !== "") rows.push(["  config", configText(device.config)]);
  const lines = rows.flatMap(([label = "", first = "none", ...more]) => [
    [label, first] as const,
    ...more.map((text) => ["", text] as const),
  ]);
  return ["", `device ${device.id}: ${device.type} "${device.name}"`, ...formatTable(lines)];
}

function qemuPart({ machine, qemuStreamBytes }: SnapshotDescription): string[] {
  const rows = qemuRows(machine).map(({ what, name, detail }) => [`  ${what}`, name, detail]);
  if (rows.length === 0) return [];
  const hint =
    qemuStreamBytes === undefined
      ? []
      : ["  (each one's state: --device NAME; a name that is none lists them)"];
  return ["", "QEMU's devices", ...formatTable(rows), ...hint];
}

function configText(hex: string): string {
  const shown = hex.slice(0, 2 * SHOWN_CONFIG_BYTES).replace(/(.{8})(?=.)/g, "$1 ");
  const isCut = hex.length > 2 * SHOWN_CONFIG_BYTES;
  return `${formatCount(hex.length / 2, "byte")}: ${shown}${isCut ? " …" : ""}`;
}

function memoryPart({ memory }: SnapshotDescription): string[] {
  if (memory.regions.length === 0) return ["", "memory: none"];
  const rows = memory.regions.map((region) => [
    `  ${region.name}`,
    `0x${region.guestAddress.toString(16)}`,
    formatBytes(region.sizeBytes),
    formatBytes(region.zeroBytes),
    formatBytes(region.duplicateBytes),
    formatBytes(region.dataBytes),
    formatBytes(region.parentBytes),
  ]);
  const head = ["  region", "at", "size", "zero", "duplicate", "data", "in parent"];
  const ratio =
    memory.compressedBytes === 0 ? "" : `, ${(memory.totalBytes / memory.compressedBytes).toFixed(1)} to 1`;
  return [
    "",
    `memory: ${formatBytes(memory.totalBytes)} as ${formatBytes(memory.compressedBytes)} of zstd frames${ratio}`,
    ...formatTable(rows, head),
    ...mapPart(memory.regions),
  ];
}

/** The regions as maps, a line for every 64 cells, and what the characters mean. */
export function mapPart(regions: readonly Pick<RegionDescription, "name" | "sizeBytes" | "map">[]): string[] {
  const rows = regions.flatMap(({ name, sizeBytes, map }) => {
    const lines = Array.from({ length: Math.ceil(map.length / MAP_COLUMNS) }, (_, line) =>
      map.slice(line * MAP_COLUMNS, (line + 1) * MAP_COLUMNS),
    );
    const lineBytes = (sizeBytes / map.length) * MAP_COLUMNS;
    return lines.map((cells, line) => [
      line === 0 ? `  ${name}` : "",
      lines.length === 1 ? "" : `+0x${Math.round(line * lineBytes).toString(16)}`,
      cells.map((cell) => CELL_CHARACTERS[cell]).join(""),
    ]);
  });
  const isLost = regions.some(({ map }) => map.includes("lost"));
  const kinds = Object.entries(CELL_CHARACTERS).filter(([kind]) => kind !== "lost" || isLost);
  const key = kinds.map(([kind, character]) => `${character} ${kind}`);
  return [...formatTable(rows), `  (${key.join(", ")})`];
}

function integrityPart(file: string, snapshot: SnapshotDescription): string[] {
  const unknown = snapshot.unknownRecordCount;
  const damaged = snapshot.devices.filter(({ state }) => state.damage !== undefined);
  if (damaged.length > 0) {
    const names = damaged.map(({ name }) => name).join(", ");
    return [
      "",
      `DAMAGED: the state of ${names}. Header, index, end and root hash are right; all places: vhu snapshot verify ${file}`,
    ];
  }
  const extra = unknown === 0 ? "" : `, ${unknown} of a type that this vhu does not know`;
  return [
    "",
    `whole: header, index, end and root hash are right; ${formatCount(snapshot.recordCount, "record")}${extra}`,
    `root ${snapshot.root} (sha256 over the index)`,
    `every byte: vhu snapshot verify ${file}`,
  ];
}

/** Words in lines that fit a page. */
function wrapped(words: readonly string[], separator: string): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    const longer = `${last}${separator}${word}`;
    if (last !== undefined && longer.length <= WIDTH - 14) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
