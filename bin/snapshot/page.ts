import { formatBytes, formatCount } from "../output/format.ts";
import { printable } from "../output/printable.ts";
import { formatTable } from "../output/table.ts";
import type { DeviceDescription, RegionDescription, SnapshotDescription } from "./describe.ts";
import type { MemoryCell } from "./memory-cells.ts";

const CELL_CHARACTERS: Readonly<Record<MemoryCell, string>> = {
  zero: "·",
  duplicate: "▒",
  data: "█",
  parent: "░",
};
/** Bytes of a config space that are shown. */
const SHOWN_CONFIG_BYTES = 24;
const WIDTH = 96;

/** The page of `vhu snapshot inspect`. What comes from the file is printed without its control characters. */
export function snapshotPage(file: string, snapshot: SnapshotDescription): string[] {
  const page = [
    ...headPart(file, snapshot),
    ...snapshot.devices.flatMap(devicePart),
    ...memoryPart(snapshot),
  ];
  return [...page, ...integrityPart(file, snapshot)].map(printable);
}

function headPart(file: string, { header, machine, sizeBytes, ...snapshot }: SnapshotDescription): string[] {
  const { writer, host, labels, vmm } = header;
  const name = machine?.name ?? header.machine?.name;
  const counts = `${formatCount(snapshot.devices.length, "device")}, ${formatBytes(snapshot.memory.totalBytes)} of memory`;
  const rows: [string, string][] = [
    ["snapshot", `${file}, ${formatBytes(sizeBytes)}, format version ${snapshot.formatVersion}`],
    ["id", header.id],
    ["made", `${header.createdAt} by ${writer.name} ${writer.version}`],
  ];
  rows.push(["on", `Linux ${host.kernel}, ${host.architecture}, CPU ${host.cpu}`]);
  if (vmm !== undefined) {
    rows.push([
      "by",
      [vmm.name, vmm.version, ...(vmm.commandLine ?? [])].filter((word) => word !== undefined).join(" "),
    ]);
  }
  rows.push(["machine", `${typeof name === "string" ? name : "(without a name)"}: ${counts}`]);
  const { parent } = snapshot;
  if (parent !== undefined) {
    rows.push([
      "based on",
      `${parent.file}, root ${parent.root} (${formatCount(parent.depth, "file")} below this one)`,
    ]);
  }
  if (header.runState !== undefined) rows.push(["run state", header.runState]);
  for (const [key, value] of Object.entries(labels)) rows.push([`label ${key}`, value]);
  if (snapshot.machineStateBytes !== undefined) {
    rows.push(["machine state", formatBytes(snapshot.machineStateBytes)]);
  }
  if (snapshot.qemuStreamBytes !== undefined) {
    rows.push(["QEMU stream", `${formatBytes(snapshot.qemuStreamBytes)} (all but RAM)`]);
  }
  return formatTable(rows);
}

function devicePart(device: DeviceDescription): string[] {
  const { backend, state } = device;
  const by = [backend.executable, backend.version].filter((part) => part !== undefined).join(" ");
  const stored = state.isStored ? formatBytes(state.sizeBytes) : "none stored";
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

function mapPart(regions: readonly RegionDescription[]): string[] {
  const rows = regions.map(({ name, map }) => [
    `  ${name}`,
    map.map((cell) => CELL_CHARACTERS[cell]).join(""),
  ]);
  const key = Object.entries(CELL_CHARACTERS).map(([kind, character]) => `${character} ${kind}`);
  return [...formatTable(rows), `  (${key.join(", ")})`];
}

function integrityPart(file: string, snapshot: SnapshotDescription): string[] {
  const unknown = snapshot.unknownRecordCount;
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
