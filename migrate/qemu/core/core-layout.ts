import { CompatibilityError } from "../../../src/errors.ts";
import {
  type CoreLayout,
  type CoreSegment,
  type SnapshotReader,
  type SnapshotRegion,
  threadNote,
} from "../../snapshot/mod.ts";
import { qemuDeviceTrees } from "../decode/device-trees.ts";
import { parseQemuMachine, type QemuMachine } from "../qemu-machine.ts";
import { x86Notes } from "./x86-notes.ts";
import { x86Registers } from "./x86-registers.ts";

const FOUR_GIB = 0x1_0000_0000;
/** Blocks that QEMU names itself where no memory backend was given. */
const RAM_NAMES = ["pc.ram", "microvm.ram"];

/** Of a machine type: how much memory is below 4 GiB, by all that it has (hw/i386: pc_q35.c, pc_piix.c, microvm.c). */
const LOW_MEMORY: readonly (readonly [RegExp, (totalBytes: number) => number])[] = [
  [/^(pc-)?q35(-|$)/, (total) => (total >= 0xb000_0000 ? 0x8000_0000 : 0xb000_0000)],
  [/^(pc$|pc-\d|pc-i440fx(-|$))/, (total) => (total >= 0xe000_0000 ? 0xc000_0000 : 0xe000_0000)],
  [/^microvm(-|$)/, () => 0xc000_0000],
];

/** A core file's layout, and whether the processors' registers are in it. */
export interface QemuCoreLayout extends CoreLayout {
  readonly hasRegisters: boolean;
}

/**
 * Where the memory of a PC is, by its machine type, with the registers of its processors where the stream describes them. ROMs and
 * video memory are left out, as dump-guest-memory does.
 *
 * @throws CompatibilityError for a machine of which it is not known, FormatError
 */
export function qemuCoreLayout(reader: SnapshotReader): QemuCoreLayout {
  const machine = parseQemuMachine(reader.manifest.machine);
  const segments = segmentsOf(machine, ramOf(reader.memoryMap));
  const trees = qemuDeviceTrees(reader) ?? new Map();
  const registers = x86Registers(trees);
  if (registers === undefined)
    return { segments, notes: threadNote(reader.header.host.architecture), hasRegisters: false };
  return { segments, notes: x86Notes(registers), hasRegisters: true };
}

/** @throws CompatibilityError where that is not one block */
function ramOf(regions: readonly SnapshotRegion[]): SnapshotRegion {
  const named = regions.filter(({ name }) => RAM_NAMES.includes(name));
  // A memory backend's block has the backend's id; those of ROMs and devices have a path or an ending.
  const backends = regions.filter(({ name }) => !/[./]/.test(name));
  const found = named.length > 0 ? [...named, ...backends] : backends;
  const [ram] = found;
  if (ram !== undefined && found.length === 1) return ram;
  const names = found.map(({ name }) => name).join(", ");
  throw notKnown(
    found.length === 0 ? "no block of it is RAM for sure" : `its RAM is in several blocks: ${names}`,
  );
}

function segmentsOf({ machineType, commandLine = [] }: QemuMachine, ram: SnapshotRegion): CoreSegment[] {
  if (commandLine.some((word) => word.includes("max-ram-below-4g")))
    throw notKnown("it was started with max-ram-below-4g");
  const lowOf = LOW_MEMORY.find(([pattern]) => pattern.test(machineType))?.[1];
  if (lowOf === undefined) throw notKnown(`${machineType} is no PC`);
  const low = Math.min(ram.sizeBytes, lowOf(ram.sizeBytes));
  const first = { regionId: ram.id, offset: 0, guestAddress: 0, sizeBytes: low };
  if (low === ram.sizeBytes) return [first];
  const rest = { offset: low, guestAddress: FOUR_GIB, sizeBytes: ram.sizeBytes - low };
  return [first, { regionId: ram.id, ...rest }];
}

function notKnown(why: string): CompatibilityError {
  return new CompatibilityError(
    `where the memory of this machine is in its address space is not known, ${why}: take its blocks with --region instead`,
    {},
    "UNKNOWN_LAYOUT",
  );
}
